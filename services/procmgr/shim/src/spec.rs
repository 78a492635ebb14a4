//! What the process manager asks a shim to do. It holds the app's secrets, so it passes through memory only: never on a
//! disk, never in an argument, and `Debug` shows no environment.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStrExt as _, path::Path, path::PathBuf};

use crate::{document::document, frame};

/// An encoded spec that is longer is not read.
pub const MAX_BYTES: usize = 1024 * 1024;

document! {
    "spec", b'\0', Spec::flaw,
    /// One generation of one instance, as it shall be started.
    Spec {
        /// Id of the instance, for people (`ps`).
        instance: String,
        /// Counts the starts of the instance; at most [`frame::GENERATION_MAX`].
        generation: u64,
        /// 16 to 64 hexadecimal digits that only this generation, its record and its manager know.
        nonce: String,
        /// Folder of this generation: record, exit, lock and control socket.
        dir: PathBuf,
        /// Folder of the instance's log segments, over all generations.
        log_dir: PathBuf,
        /// All segments together never take more; less than [`crate::segment::BUDGET_MIN`] counts as that.
        log_budget_bytes: u64,
        /// When a segment is full; at most half of the budget.
        segment_bytes: u64,
        /// Executable, absolute.
        program: PathBuf,
        /// Its arguments after the program's own name.
        args: Vec<OsString>,
        /// Its working folder.
        cwd: PathBuf,
        /// Its whole environment.
        env: Vec<(OsString, OsString)>,
        /// Whether the program builds a box: it gets a network and process numbers of its own, and a report (see `control`).
        boxed: bool,
        /// Whether the program, started outside of the box with `--map` and the shim's number, says whose the box's ids are; else an
        /// ordinary user's box has that user's.
        mapped: bool,
        /// Whether the box is a virtual machine: its app is reached by the socket that the program makes in `dir`.
        machine: bool,
        /// The `cgroup.procs` files of the cgroups that shim and app join.
        cgroups: Vec<PathBuf>,
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spec({} {})", self.instance, self.generation)
    }
}

impl Spec {
    fn flaw(&self) -> Option<&'static str> {
        let hex = self.nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        let named = self.env.iter().all(|(name, _)| !name.is_empty() && !name.as_bytes().contains(&b'='));
        let mut paths = [&self.dir, &self.log_dir, &self.program, &self.cwd].into_iter().chain(&self.cgroups);
        let rules = [
            (!self.instance.is_empty() && !self.instance.contains(char::is_control), "instance is no id"),
            (hex && (16..=64).contains(&self.nonce.len()), "nonce is not 16 to 64 hexadecimal digits"),
            (self.generation <= frame::GENERATION_MAX, "generation is too great"),
            (named, "env has a variable without a proper name"),
            (paths.all(|path| Path::is_absolute(path)), "a path is not absolute"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn spec() -> Spec {
        Spec {
            instance: "shop".into(),
            generation: 7,
            nonce: "0123456789abcdef".into(),
            dir: "/i/7".into(),
            log_dir: "/i/log".into(),
            log_budget_bytes: 1,
            segment_bytes: 2,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), "a=b\nc".into()],
            cwd: "/".into(),
            env: vec![("SECRET".into(), "hush=hush\n".into()), ("EMPTY".into(), "".into())],
            boxed: true,
            mapped: true,
            machine: false,
            cgroups: vec!["/sys/fs/cgroup/x/cgroup.procs".into(), "/sys/fs/cgroup/y/cgroup.procs".into()],
        }
    }

    #[test]
    fn a_spec_arrives_as_it_was_sent() {
        let plain = Spec { args: vec![], env: vec![], boxed: false, cgroups: vec![], ..spec() };
        for spec in [spec(), plain] {
            assert_eq!(Spec::decode(&spec.encode().unwrap()).unwrap(), spec);
        }
    }

    #[test]
    fn a_spec_shows_no_secret() {
        assert_eq!(format!("{:?}", spec()), "Spec(shop 7)");
    }

    #[test]
    fn what_would_be_refused_is_not_sent() {
        let refused = |change: fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.encode().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|spec| spec.nonce = "xyz".into()),
            "spec is malformed: nonce is not 16 to 64 hexadecimal digits"
        );
        assert_eq!(refused(|spec| spec.cwd = "here".into()), "spec is malformed: a path is not absolute");
        assert_eq!(refused(|spec| spec.generation = 1 << 24), "spec is malformed: generation is too great");
        assert_eq!(
            refused(|spec| spec.args.push("a\0b".into())),
            "spec is malformed: args holds a separator"
        );
        assert!(refused(|spec| spec.env.push(("A=B".into(), "".into()))).contains("proper name"));
        assert!(refused(|spec| spec.dir = "x".into()).contains("absolute"));
    }

    #[test]
    fn repeated_and_missing_entries_are_refused_and_unknown_ones_passed_over() {
        let with =
            |extra: &str| Spec::decode(&[spec().encode().unwrap().as_slice(), extra.as_bytes()].concat());
        let why = |extra: &str| with(extra).unwrap_err().to_string();
        assert_eq!(with("later=yes\0").unwrap(), spec());
        assert_eq!(why("boxed=true\0"), "spec is malformed: boxed is missing or not what it should be");
        assert_eq!(why("boxed"), "spec is malformed: its end is missing");
        assert_eq!(why("boxed\0"), "spec is malformed: an entry is not key=value");
        assert_eq!(why("env=novalue\0"), "spec is malformed: env is missing or not what it should be");
        assert!(Spec::decode(b"a=b\0").is_err() && Spec::decode(b"").is_err());
    }

    proptest! {
        #[test]
        fn no_input_is_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Spec::decode(&bytes);
        }

        #[test]
        fn no_damage_is_a_crash(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = spec().encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Spec::decode(&bytes);
            bytes.truncate(at);
            let _ = Spec::decode(&bytes);
        }

        #[test]
        fn every_environment_passes(env in proptest::collection::vec(("[^=\0]{1,9}", "[^\0]{0,20}"), 0..9)) {
            let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let spec = Spec { env, ..spec() };
            prop_assert_eq!(Spec::decode(&spec.encode().unwrap()).unwrap(), spec);
        }
    }
}
