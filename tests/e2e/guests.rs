//! What microVMs need is fetched where it alone is missing, and built as they need it or not at all. The scripts are the real
//! ones; programs, Python and cargo are not, so nothing is fetched and nothing is built.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use nexushub_e2e::workshop;

/// What the probe says where everything but the guest's kernel is there; its exit code is 1 then, as for anything that is missing.
const LACKS_ITS_KERNEL: &str = "there is no guest kernel (libkrunfw.so.5): fetch it with dist/libkrunfw";

/// A program of one's own in a folder. Written by another process: one that this one held open could not be executed.
fn put(folder: &Path, name: &str, script: &str) {
    let write = "mkdir -p \"$1\" && printf '#!/bin/sh\\n%s\\n' \"$3\" >\"$1/$2\" && chmod 755 \"$1/$2\"";
    let put = Command::new("sh").args(["-c", write, "sh"]).arg(folder).args([name, script]).status();
    assert!(put.unwrap().success());
}

/// Runs a script of `dist/` that finds these tools before others.
fn dist(script: &str, tools: &Path, words: &[&str], variables: &[(&str, &Path)]) -> (Output, String) {
    let path = format!("{}:{}", tools.display(), env::var("PATH").unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(script);
    let done =
        Command::new(script).args(words).env("PATH", path).envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, said)
}

#[test]
fn the_guests_kernel_is_fetched_where_a_probe_says_that_nothing_else_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (tools, bin) = (folder.path().join("tools"), folder.path().join("bin"));
    put(&tools, "python3", "exit 1");
    put(&bin, "nexushub", "exit 9"); // that far and no further
    let home = folder.path().join("home").display().to_string();
    for (said, fetched) in [(LACKS_ITS_KERNEL, true), ("there is no /dev/kvm", false), ("ok", false)] {
        put(&bin, "nexushub-krun", &format!("echo '{said}'; test '{said}' = ok"));
        let (up, words) = dist("up", &tools, &["--home", &home], &[("NEXUSHUB_BIN_DIR", &bin)]);
        assert_eq!(up.status.code(), Some(9), "{words}");
        assert_eq!(words.contains("without it apps run in the sandbox"), fetched, "{said}: {words}");
        let (own, words) = dist("libkrunfw", &tools, &["--if-wanted", &bin.display().to_string()], &[]);
        assert_eq!(!own.status.success(), fetched, "{said}: {words}");
    }
}

#[test]
fn the_agent_is_small_and_needs_no_library() {
    let agent = workshop::program("nexushub-agent");
    if cfg!(not(target_arch = "x86_64")) {
        return println!("there is no guest kernel for this machine");
    }
    let bytes = fs::read(agent).unwrap();
    assert!(bytes.len() <= 2 << 20, "{} bytes", bytes.len());
    // Of the program's headers none names an interpreter, as that of every program that needs libraries does.
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<_> = (0..count).map(|header| number(table + header * size, 4)).collect();
    let (loaded, interpreter) = (1, 3);
    assert!(kinds.contains(&loaded) && !kinds.contains(&interpreter), "{kinds:?}");
}

#[test]
fn a_machine_program_that_cannot_be_built_stays_what_it_was_or_is_none_and_all_else_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let (tools, target) = (folder.path().join("tools"), folder.path().join("target"));
    let static_ones = "mkdir -p $CARGO_TARGET_DIR/x/release; for program in shim sandbox agent hello login admin; do \
                       : >$CARGO_TARGET_DIR/x/release/nexushub-$program; done";
    put(
        &tools,
        "cargo",
        &format!("case $* in *nexushub-krun*) exit 101 ;; esac; {static_ones}; echo \"$*\""),
    );
    put(&tools, "rustc", "echo 'host: x'");
    put(&tools, "uname", "echo x86_64");
    put(&tools, "cc", "exit 1");
    put(&target.join("release"), "nexushub", "exit 1");
    put(&target.join("release"), "nexushub-krun", "exit 1"); // of an earlier build
    let earlier = target.join("release/nexushub-krun");
    let (build, said) = dist("build", &tools, &[], &[("CARGO_TARGET_DIR", &target)]);
    assert!(!build.status.success() && said.contains("go on without microVMs"), "{said}");
    assert!(earlier.exists(), "it is still what it was");
    fs::remove_file(&earlier).unwrap();
    let (build, said) = dist("build", &tools, &[], &[("CARGO_TARGET_DIR", &target)]);
    assert!(build.status.success() && said.contains("nexushub-krun could not be built"), "{said}");
    let built = String::from_utf8_lossy(&build.stdout).into_owned();
    assert!(built.contains("-p nexushub-procmgr") && built.contains("-p nexushub-shim"), "{built}");
    assert!(!earlier.exists());
    assert!(target.join("release/nexushub-agent").exists());
}

#[test]
fn an_agent_that_cannot_be_linked_statically_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (tools, target) = (folder.path().join("tools"), folder.path().join("target"));
    put(&tools, "cargo", "case $RUSTFLAGS in *crt-static*) exit 1 ;; esac; echo \"$*\"");
    put(&tools, "rustc", "echo 'host: x'");
    put(&tools, "uname", "echo x86_64");
    put(&tools, "cc", "exit 1");
    put(&target.join("release"), "nexushub", "exit 1");
    put(&target.join("release"), "nexushub-agent", "exit 1"); // a dynamic one, from elsewhere
    let (build, said) = dist("build", &tools, &[], &[("CARGO_TARGET_DIR", &target)]);
    assert!(build.status.success() && said.contains("there are no microVMs"), "{said}");
    let built = String::from_utf8_lossy(&build.stdout).into_owned();
    assert!(built.contains("-p nexushub-shim") && !built.contains("nexushub-agent"), "{built}");
    assert!(!target.join("release/nexushub-agent").exists());
}
