//! Static instances: `[[provider.instance]]` of the configuration file and the files of `apps.d`, read once at start (a changed
//! file is taken up when the daemon is rolled). All of them are judged together: one bad entry, unknown key or host name
//! given twice refuses the whole, so that a typo changes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nexushub_chassis::Fault;
use serde::Deserialize;
use toml::Spanned;

use crate::{
    instance::{Entry, Source},
    merge::{Ground, merge},
    typed::{Judge, Typed},
};

/// Exit code of a bad configuration.
const EXIT_USAGE: u8 = 64;
/// Largest file of `apps.d`, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most static instances, and most files of `apps.d`.
const INSTANCES_MAX: usize = 1000;

/// A file that holds a list rather than one instance.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct List {
    instance: Vec<Spanned<Typed>>,
}

/// Text with the name of its file, for messages.
pub struct Document {
    /// Where it was read.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl Document {
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    /// The line of a key in the entry that begins at this byte and ends before the next one; else the entry's own line.
    fn line_of_key(&self, start: usize, key: &str) -> usize {
        let mut offset = start;
        for line in self.text.get(start..).unwrap_or_default().split_inclusive('\n') {
            if offset > start && line.starts_with("[[") {
                break;
            }
            let rest = line.trim_start().trim_start_matches('[').strip_prefix(key).map(str::trim_start);
            if rest.is_some_and(|rest| rest.starts_with(['=', '.', ']'])) {
                return self.line(offset);
            }
            offset += line.len();
        }
        self.line(start)
    }

    fn malformed(&self, error: &toml::de::Error) -> Fault {
        let line = error.span().map_or_else(String::new, |span| format!(":{}", self.line(span.start)));
        let mut said = error.message().lines();
        let said = said.next().unwrap_or("malformed");
        let key = said.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        let key = key.map_or_else(String::new, |key| format!(": {key}"));
        let hint = "one instance a file, or a list of [[instance]]; see [[provider.instance]] in dist/config/nexushub.toml";
        invalid(said.to_owned(), format!("{}{line}{key}", self.path.display()), hint)
    }

    /// Judges entries of this file.
    fn entries(&self, typed: Vec<Spanned<Typed>>, judge: &Judge, table: &str) -> Result<Vec<Entry>, Fault> {
        let judged = typed.into_iter().map(|typed| {
            let start = typed.span().start;
            let typed = typed.into_inner();
            let source = Source::File(self.path.clone(), Some(self.line(start)));
            judge.entry(typed, source).map_err(|bad| {
                let line = self.line_of_key(start, bad.key);
                let object = format!("{}:{line}: {table}{}", self.path.display(), bad.key);
                invalid(bad.why, object, "correct the value; see dist/config/nexushub.toml for every key")
            })
        });
        judged.collect()
    }
}

/// Every static instance: those of the configuration file, then those of `apps.d`.
///
/// # Errors
/// The first entry, file or pair of entries that can't be, with file, line and key.
pub fn read(
    config: Option<&Document>,
    listed: Vec<Spanned<Typed>>,
    apps_dir: &Path,
    judge: &Judge,
) -> Result<Vec<Entry>, Fault> {
    let built_in = Document { path: PathBuf::from("nexushub.toml"), text: String::new() };
    let mut entries = config.unwrap_or(&built_in).entries(listed, judge, "provider.instance.")?;
    for path in files(apps_dir)? {
        let text = text(&path).map_err(|error| unreadable(&path, &error))?;
        entries.extend(parse(&Document { path, text }, judge)?);
    }
    if entries.len() > INSTANCES_MAX {
        let object = apps_dir.display().to_string();
        return Err(invalid(
            format!("{} static instances, more than {INSTANCES_MAX}", entries.len()),
            object,
            "remove some",
        ));
    }
    let conflicts = merge(&entries, &[], &[], &Ground::default()).conflicts;
    if let Some(conflict) = conflicts.first() {
        let (path, line) = match &conflict.source {
            Source::File(path, line) => (path.as_path(), *line),
            Source::Dynamic | Source::Debug | Source::Promoted => (apps_dir, None),
        };
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        let object = format!("{}{line}", path.display());
        return Err(invalid(
            conflict.to_string(),
            object,
            "give each instance an id and a host name of its own",
        ));
    }
    Ok(entries)
}

/// One file of `apps.d`: an instance, or a list of them.
fn parse(document: &Document, judge: &Judge) -> Result<Vec<Entry>, Fault> {
    let malformed = |error: toml::de::Error| document.malformed(&error);
    let table: toml::Table = toml::from_str(&document.text).map_err(malformed)?;
    let listed = if table.contains_key("instance") {
        toml::from_str::<List>(&document.text).map_err(malformed)?.instance
    } else {
        let one: Typed = toml::from_str(&document.text).map_err(malformed)?;
        vec![Spanned::new(0..document.text.len(), one)]
    };
    document.entries(listed, judge, "")
}

/// The `.toml` files of the folder, by name; none when there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| unreadable(folder, &error))?,
    };
    let mut files = Vec::new();
    for found in listing {
        let path = found.map_err(|error| unreadable(folder, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    if files.len() > INSTANCES_MAX {
        let object = folder.display().to_string();
        return Err(invalid(
            format!("{} files, more than {INSTANCES_MAX}", files.len()),
            object,
            "remove some",
        ));
    }
    files.sort();
    Ok(files)
}

/// The whole of a regular file that isn't too large.
///
/// # Errors
/// When it is something else, too large, or can't be read.
pub fn text(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if found.len() > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let msg = format!("could not read static instances: {error}");
    invalid(msg, path.display().to_string(), "check the path and its permissions")
}

fn invalid(msg: String, object: String, hint: &str) -> Fault {
    Fault { exit: EXIT_USAGE, ..Fault::new("config_invalid", msg, object, hint) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nexushub_chassis::names::Zone;

    fn judge() -> Judge {
        Judge { zone: Zone::new("b.localhost", 8443), root: Some("/project".into()) }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn read_dir(files: &[(&str, &str)]) -> Result<Vec<Entry>, Fault> {
        read(None, Vec::new(), folder(files).path(), &judge())
    }

    #[test]
    fn a_file_holds_one_instance_or_a_list() {
        let one = "id='a'\nhost_name='a'\nrelease='r'\n[env]\nX='1'\n[health]\npath='/up'\n";
        let list = "[[instance]]\nid='b'\nhost_name='b'\nrelease='/r'\n[[instance]]\nid='c'\nhost_name='c'\nrelease='/r'\n";
        let entries =
            read_dir(&[("2.toml", list), ("1.toml", one), ("README", "x"), (".x.toml", "x")]).unwrap();
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(entries[0].fields.release, Some("/project/r".into()));
        let Source::File(path, line) = &entries[2].source else { unreachable!("entries come from files") };
        assert!(path.ends_with("2.toml"));
        assert_eq!(*line, Some(5));
    }

    #[test]
    fn no_folder_means_no_instances() {
        assert_eq!(read(None, Vec::new(), Path::new("/nowhere/apps.d"), &judge()).unwrap(), []);
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        for text in [
            "id='a'\nhots_name='x'\n",
            "[[instance]]\nhots_name='x'\n",
            "id='a'\n[health]\nhots_name=1\n",
            "instance=[]\nhots_name=1\n",
        ] {
            let fault = read_dir(&[("a.toml", text)]).unwrap_err();
            let line = 1 + text.lines().position(|line| line.starts_with("hots")).unwrap();
            assert_eq!(fault.exit, 64);
            assert!(fault.object.ends_with(&format!("a.toml:{line}: hots_name")), "{}", fault.object);
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        let text = "[[instance]]\nid='a'\nhost_name='a'\nrelease='/r'\n[[instance]]\nid='b'\nrelease='/r'\nhost_name='b b'\n";
        let fault = read_dir(&[("a.toml", text)]).unwrap_err();
        assert!(fault.object.ends_with("a.toml:8: host_name"), "{}", fault.object);
        let fault =
            read_dir(&[("a.toml", "id='a'\nhost_name='a'\nrelease='/r'\n[env]\nPORT='1'\n")]).unwrap_err();
        assert!(fault.object.ends_with("a.toml:4: env"), "{}", fault.object);
    }

    #[test]
    fn a_host_name_given_twice_names_both_files_with_their_lines() {
        let text = "id='ID'\nhost_name='same.b.localhost:8443'\nrelease='/r'\n";
        let files = [("1.toml", text.replace("ID", "a")), ("2.toml", text.replace("ID", "b"))];
        let fault = read_dir(&[(files[0].0, &files[0].1), (files[1].0, &files[1].1)]).unwrap_err();
        assert!(fault.msg.contains("1.toml:1)") && fault.msg.contains("2.toml:1)"), "{}", fault.msg);
    }

    #[test]
    fn instances_of_the_configuration_file_are_found_with_their_lines() {
        let text = "[platform]\n\n[[provider.instance]]\nid='a'\nhost_name='a'\nrelease='r'\n";
        #[derive(Deserialize)]
        struct File {
            provider: crate::config::Config,
        }
        let listed = toml::from_str::<File>(&text.replace("[platform]", "")).unwrap().provider.instance;
        let document = Document { path: "/p/nexushub.toml".into(), text: text.replace("[platform]", "") };
        let entries = read(Some(&document), listed, Path::new("/nowhere"), &judge()).unwrap();
        assert_eq!(entries[0].source, Source::File("/p/nexushub.toml".into(), Some(3)));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = folder(&[]);
        fs::create_dir(folder.path().join("a.toml")).unwrap();
        let fault = read(None, Vec::new(), folder.path(), &judge()).unwrap_err();
        assert!(fault.msg.contains("not a regular file"), "{}", fault.msg);
        let fault = read_dir(&[("a.toml", &" ".repeat(2 << 20))]).unwrap_err();
        assert!(fault.msg.contains("larger than"), "{}", fault.msg);
        let fault = read_dir(&[("a.toml", "id=\u{0}")]).unwrap_err();
        assert_eq!(fault.exit, 64);
    }
}
