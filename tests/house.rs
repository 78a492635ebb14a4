//! The rules of the house, executable: who may import whom, how much there may be of anything, and that configuration, units
//! and code say the same. It reads sources and manifests; nothing is built or started.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use nexushub_launch::{
    daemon::{DAEMONS, Daemon},
    secret::GRANTS,
};
use toml::{Table, Value};

/// Our crates, and which of our crates each may import.
const ARROWS: [(&str, &[&str]); 20] = [
    ("nexushub-proto", &[]),
    ("nexushub-launch", &[]),
    ("nexushub-supervisor", &["nexushub-launch"]),
    ("nexushub-shim", &["nexushub-launch"]),
    ("nexushub-sandbox", &["nexushub-volume"]),
    ("nexushub-krun", &["nexushub-agent", "nexushub-volume"]),
    ("nexushub-agent", &[]),
    ("nexushub-volume", &[]),
    ("nexushub-chassis", &["nexushub-launch", "nexushub-proto"]),
    ("nexushub-provider", &["nexushub-chassis", "nexushub-proto"]),
    ("nexushub-procmgr", &["nexushub-chassis", "nexushub-proto", "nexushub-shim", "nexushub-volume"]),
    ("nexushub-proxy", &["nexushub-chassis", "nexushub-proto"]),
    ("nexushub-debug-api", &["nexushub-chassis", "nexushub-proto", "nexushub-volume"]),
    ("nexushub", &["nexushub-chassis", "nexushub-proto", "nexushub-launch"]),
    ("nexushub-hello", &["nexushub-applib"]),
    ("nexushub-applib", &[]),
    ("nexushub-login", &["nexushub-applib"]),
    ("nexushub-admin", &["nexushub-applib"]),
    ("nexushub-e2e", &["nexushub-proto", "nexushub-launch", "nexushub-proxy"]), // the proxy for a bench of what no client can time
    (
        "nexushub-fuzz",
        &["nexushub-agent", "nexushub-chassis", "nexushub-debug-api", "nexushub-proxy", "nexushub-shim"],
    ),
];

/// What small rooms may use from outside, and nothing else.
const FRUGAL: [(&str, &[&str]); 7] = [
    ("nexushub-launch", &["getrandom", "hkdf", "nix", "serde", "sha2", "toml", "uuid"]),
    ("nexushub-supervisor", &["getrandom", "nix", "serde"]),
    ("nexushub-shim", &["crc32fast", "nix"]),
    ("nexushub-sandbox", &["landlock", "nix", "seccompiler"]),
    ("nexushub-krun", &["kvm-bindings", "kvm-ioctls", "libkrun", "nix"]),
    ("nexushub-agent", &["nix"]),
    ("nexushub-volume", &["nix"]),
];

/// Folders whose code together may not grow beyond so many lines. The supervisor's is what its features came to, at their
/// tersest (ARCHITECTURE.md, decisions).
const CAPS: [(&[&str], usize); 2] =
    [(&["supervisor/src", "supervisor/launch/src"], 2060), (&["services/procmgr/shim/src"], 1140)];
/// Code that lies beside the shim because its format has one home, but that only procmgr links.
const NOT_IN_THE_SHIM: [&str; 4] = [
    "services/procmgr/shim/src/reader.rs",
    "services/procmgr/shim/src/reader/cursor.rs",
    "services/procmgr/shim/src/reader/source.rs",
    "services/procmgr/shim/src/spawn.rs",
];
const FILE_CAP: usize = 500;
const PAGE_CAP: usize = 200;
const MAIN_CAP: usize = 30;

/// What lies at the top.
const TOP: [&str; 20] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "dist",
    "docker-compose.yml",
    "proto",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "services",
    "supervisor",
    "tests",
    ".dockerignore",
];
/// What lies there without being part of it.
const ASIDE: [&str; 3] = [".git", ".nexushub", "target"];

/// Where `unsafe` may be allowed, module by module.
const UNSAFE_CORNERS: [&str; 9] = [
    "supervisor/src",
    "supervisor/launch/src",
    "services/procmgr/agent/src",
    "services/procmgr/krun/src",
    "services/procmgr/sandbox/src",
    "services/procmgr/shim/src",
    "services/procmgr/volume/src",
    "services/proxy/src",
    "tests/bench/krun.rs",
];

/// Each table of the configuration, the file that declares it and the struct.
const TABLES: [(&str, &str, &str); 8] = [
    ("platform", "supervisor/launch/src/config.rs", "Platform"),
    ("supervisor", "supervisor/src/config.rs", "Settings"),
    ("rpc", "services/chassis/src/serve.rs", "Rpc"),
    ("telemetry", "services/chassis/src/telemetry.rs", "Telemetry"),
    ("provider", "services/provider/src/config.rs", "Config"),
    ("procmgr", "services/procmgr/src/config.rs", "Config"),
    ("proxy", "services/proxy/src/config.rs", "Config"),
    ("debug-api", "services/debug-api/src/config.rs", "Config"),
];
/// Structs whose keys are documented in comments, because every one of them is optional.
const DOCUMENTED: [(&str, &str); 4] = [
    ("services/provider/src/typed.rs", "Typed"),
    ("services/provider/src/instance.rs", "Health"),
    ("services/provider/src/instance.rs", "Limits"),
    ("services/provider/src/route.rs", "Route"),
];
/// Keys that are tables, documented by what is in them.
const NESTED: [&str; 4] = ["env", "health", "limits", "route"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

/// Every package without which some can't be built, by name.
fn all_needed(by: BTreeSet<String>) -> BTreeSet<String> {
    let lock: Table = read("Cargo.lock").parse().unwrap();
    let packages: Vec<&Table> =
        lock["package"].as_array().unwrap().iter().map(|package| package.as_table().unwrap()).collect();
    let (mut needed, mut left): (_, Vec<String>) = (by.clone(), by.into_iter().collect());
    while let Some(name) = left.pop() {
        let of_that_name = packages.iter().filter(|package| package["name"].as_str() == Some(&name));
        let lines = of_that_name.filter_map(|package| package.get("dependencies")?.as_array()).flatten();
        // One of which there are several versions is told with its version.
        let names = lines.filter_map(|line| Some(line.as_str()?.split(' ').next()?.to_owned()));
        left.extend(names.filter(|name| needed.insert(name.clone())));
    }
    needed
}

fn imports(package: &Package) -> BTreeSet<&str> {
    let used =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    used.map(|dependency| dependency.name.as_str()).collect()
}

/// Every source file of ours below a folder, relative to the root.
fn sources(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<String> {
    ["supervisor", "services", "proto", "tests"]
        .into_iter()
        .flat_map(sources)
        .chain(["build.rs".to_owned()])
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// The lines that are neither blank nor comment, split into those of the program and those of its tests.
fn code(path: &str) -> (Vec<String>, Vec<String>) {
    let (mut program, mut tests) = (Vec::new(), Vec::new());
    let text = read(path);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let bare = line.trim();
        if line == "#[cfg(test)]" {
            for line in lines.by_ref() {
                tests.push(line.to_owned());
                if line == "}" || (line.ends_with(';') && !line.starts_with(' ')) {
                    break;
                }
            }
        } else if !bare.is_empty() && !bare.starts_with("//") {
            program.push(line.to_owned());
        }
    }
    if is_test_file(path) { (Vec::new(), [program, tests].concat()) } else { (program, tests) }
}

#[test]
fn a_bare_build_needs_nothing_of_what_runs_microvms() {
    let (metadata, krun) = (metadata(), "nexushub-krun".to_owned());
    let members = metadata.workspace_default_packages().into_iter().map(|package| package.name.to_string());
    let members: BTreeSet<_> = members.collect();
    assert!(members.contains("nexushub-procmgr") && !members.contains(&krun));
    let theirs = |name: &String| name == "libkrun" || name.starts_with("krun-") || name.starts_with("kvm-");
    let (bare, with) = (all_needed(members), all_needed([krun].into()));
    assert_eq!(bare.iter().find(|name| theirs(name)), None, "cargo would have to fetch it");
    assert!(with.iter().any(theirs), "and that is what they are called");
}

#[test]
fn rooms_import_only_whom_they_may() {
    let arrows = BTreeMap::from(ARROWS);
    for package in metadata().workspace_packages() {
        let allowed = arrows
            .get(package.name.as_str())
            .unwrap_or_else(|| panic!("{}: which may it import? say so in ARROWS", package.name));
        for import in imports(package).into_iter().filter(|name| arrows.contains_key(name)) {
            assert!(allowed.contains(&import), "{} may not import {import}", package.name);
        }
    }
}

#[test]
fn small_rooms_use_nothing_from_outside_but_what_they_need() {
    let metadata = metadata();
    for (room, allowed) in FRUGAL {
        let package =
            metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == room).unwrap();
        let stray = imports(package)
            .into_iter()
            .find(|name| !name.starts_with("nexushub-") && !allowed.contains(name));
        assert_eq!(stray, None, "{room} may not use it");
    }
}

#[test]
fn rooms_and_files_keep_to_their_size() {
    for (folders, cap) in CAPS {
        let files = folders
            .iter()
            .flat_map(|folder| sources(folder))
            .filter(|file| !NOT_IN_THE_SHIM.contains(&file.as_str()));
        let lines: usize = files.map(|file| code(&file).0.len()).sum();
        assert!(lines <= cap, "{folders:?}: {lines} lines, at most {cap}");
    }
    let page = read("ARCHITECTURE.md").lines().count();
    assert!(page <= PAGE_CAP, "ARCHITECTURE.md: {page} lines, at most {PAGE_CAP}");
    for file in all_sources() {
        let lines = code(&file).0.len();
        assert!(lines <= FILE_CAP, "{file}: {lines} lines, at most {FILE_CAP}");
        assert!(
            !file.ends_with("/main.rs")
                || is_test_file(&file)
                || lines <= MAIN_CAP
                || file.contains("/apps/"),
            "{file}: {lines} lines, at most {MAIN_CAP}"
        );
    }
}

#[test]
fn every_file_says_what_it_is_for_and_is_named_by_a_noun_of_its_own() {
    for file in all_sources() {
        assert!(read(&file).starts_with("//!"), "{file} does not open with //!");
        assert!(!file.ends_with("/mod.rs"), "{file}: foo.rs and foo/, never mod.rs");
    }
}

#[test]
fn tests_neither_sleep_nor_hide() {
    let (ignore, sleep) = (["#[", "ignore"].concat(), ["sleep", "("].concat());
    let is_word = |text: &str| !text.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    for file in all_sources() {
        let tests = code(&file).1.join("\n");
        assert!(!tests.contains(&ignore), "{file}: a test that is not run tells nothing");
        let virtual_time = tests.contains("start_paused = true");
        let sleeps = tests.match_indices(&sleep).any(|(at, _)| is_word(&tests[..at]));
        assert!(!sleeps || virtual_time, "{file}: wait on state, never on time");
    }
}

#[test]
fn unsafe_is_allowed_only_in_marked_corners() {
    let mark = ["allow(", "unsafe_code)"].concat();
    for file in all_sources().into_iter().filter(|file| read(file).contains(&mark)) {
        assert!(
            UNSAFE_CORNERS.iter().any(|corner| file.starts_with(corner)),
            "{file} may not allow unsafe code"
        );
    }
    for package in metadata().workspace_packages() {
        let manifest: Table = fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        assert_eq!(
            manifest["lints"]["workspace"],
            Value::Boolean(true),
            "{} keeps the lints of the house",
            package.name
        );
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = read("Cargo.toml");
    let (_, from) = text.split_once("[workspace.dependencies]").unwrap();
    let (table, _) = from.split_once("\n[").unwrap();
    let (_, outside) = table.split_once("# --- the operating system ---").unwrap();
    for line in outside.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
        assert!(
            line.split_once('#').is_some_and(|(_, reason)| !reason.trim().is_empty()),
            "no reason: {line}"
        );
    }
    for package in metadata().workspace_packages() {
        let manifest: Table = fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        for (name, wanted) in ["dependencies", "dev-dependencies", "build-dependencies"]
            .iter()
            .filter_map(|kind| manifest.get(*kind)?.as_table())
            .flatten()
        {
            assert_eq!(
                wanted.get("workspace"),
                Some(&Value::Boolean(true)),
                "{}: the version of {name} belongs in the root manifest",
                package.name
            );
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(
            TOP.contains(&name.as_str()) || ASIDE.contains(&name.as_str()),
            "{name} does not belong there"
        );
    }
}

#[test]
fn every_call_of_every_contract_is_explained() {
    for daemon in DAEMONS {
        let package = daemon.name.replace('-', "");
        let text = read(&format!("proto/nexushub/{package}/v1/{package}.proto"));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("rpc ")) {
            assert!(lines[at - 1].starts_with("//"), "{package}: no comment on {line}");
        }
    }
}

/// Constants that say the least and the most of something, by name, as they are written.
fn bounds(path: &str) -> BTreeMap<String, String> {
    let text = read(path);
    let said = text.lines().filter_map(|line| line.split_once("const ")?.1.split_once(": (u64, u64) = "));
    said.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_admin_app_takes_the_limits_that_the_platform_takes() {
    let platform = bounds("services/chassis/src/bounds.rs");
    assert_eq!(platform.len(), 6, "{platform:?}");
    assert_eq!(bounds("services/apps/admin/src/terms.rs"), platform);
}

// ---------------------------------------------------------------- configuration

/// The text between the brace that follows a mark and its match.
fn block<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let from = &text[text.find(mark)?..];
    let open = from.find('{')?;
    let mut depth = 0;
    for (at, char) in from[open..].char_indices() {
        depth += i32::from(char == '{') - i32::from(char == '}');
        if depth == 0 {
            return Some(&from[open + 1..open + at]);
        }
    }
    None
}

/// Fields of a struct with their types.
fn fields(text: &str, name: &str) -> BTreeMap<String, String> {
    let body = block(text, &format!("struct {name} {{")).filter(|body| !body.contains('$'));
    let body = body.or_else(|| block(text, "\nsettings! {")).unwrap_or_else(|| panic!("no struct {name}"));
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.trim_end_matches(',').split_once(": "));
    pairs.map(|(key, kind)| (key.rsplit(' ').next().unwrap().to_owned(), kind.to_owned())).collect()
}

/// The default of each field as TOML; none where the default is that there is none.
fn defaults(text: &str, name: &str) -> BTreeMap<String, Option<Value>> {
    let declared = fields(text, name);
    if let Some((_, kind)) = declared.iter().find(|(_, kind)| kind.contains(" = ")) {
        assert!(kind.contains(" = "));
        return declared
            .into_iter()
            .map(|(key, kind)| (key, evaluate(kind.split_once(" = ").unwrap().1)))
            .collect();
    }
    let Some(body) = block(text, &format!("impl Default for {name} "))
        .and_then(|body| block(block(body, "-> Self ")?, "Self {"))
    else {
        return declared.into_keys().map(|key| (key, Some(Value::String(String::new())))).collect();
    };
    let mut found = BTreeMap::new();
    for pair in commas(body) {
        let (key, value) = pair.split_once(':').unwrap();
        found.insert(key.trim().to_owned(), evaluate(value.trim()));
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), declared.keys().collect::<Vec<_>>(), "{name}");
    found
}

/// Splits at the commas that stand in no bracket.
fn commas(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for char in text.chars() {
        depth += i32::from("([{".contains(char)) - i32::from(")]}".contains(char));
        if char == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(char);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The home of names that daemons share, and that of those which their guests know.
const NAMES: &str = "services/chassis/src/names.rs";
const GUESTS_NAMES: &str = "services/apps/applib/src/wellknown.rs";

/// The texts that an expression means: a literal, or the name of a constant of this file, which may be a list of either.
fn texts(file: &str, rust: &str) -> Vec<String> {
    if let Some(literal) = rust.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return vec![literal.to_owned()];
    }
    let text = code(file).0.join("\n");
    let (_, from) =
        text.split_once(&format!("const {rust}: ")).unwrap_or_else(|| panic!("{file} has no {rust}"));
    let (value, _) = from.split_once(" = ").and_then(|(_, value)| value.split_once(';')).unwrap();
    match value.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']')) {
        Some(list) => commas(list).iter().flat_map(|one| texts(file, one)).collect(),
        None => texts(file, value.trim()),
    }
}

#[test]
fn guests_and_daemons_know_the_platforms_own_names_alike() {
    for (ours, theirs) in
        [("LOGIN_INSTANCE", "LOGIN"), ("ADMIN_INSTANCE", "ADMIN"), ("RESERVED_HOSTS", "RESERVED_HOSTS")]
    {
        assert_eq!(texts(NAMES, ours), texts(GUESTS_NAMES, theirs), "{ours}");
    }
}

/// A default as it is written in Rust, as TOML.
fn evaluate(rust: &str) -> Option<Value> {
    let number = |text: &str| text.trim().replace('_', "").parse::<i64>().ok();
    let literals: Vec<&str> = rust.split('"').skip(1).step_by(2).collect();
    let value = match rust {
        "None" => return None,
        "true" | "false" => Value::Boolean(rust == "true"),
        "PathBuf::new()" | "String::new()" => Value::String(String::new()),
        "Vec::new()" => Value::Array(Vec::new()),
        _ if rust.starts_with('[') => {
            let (list, _) = rust.split_once(']').unwrap();
            Value::Array(
                commas(&list[1..]).iter().flat_map(|one| texts(NAMES, one)).map(Value::String).collect(),
            )
        }
        _ if rust.ends_with(".map(str::to_owned).to_vec()") => {
            let (name, _) = rust.split_once('.').unwrap();
            Value::Array(texts(NAMES, name).into_iter().map(Value::String).collect())
        }
        _ if rust.starts_with("SocketAddr::from((") => {
            let digits: Vec<&str> = rust
                .split(|c: char| !c.is_ascii_digit() && c != '_')
                .filter(|text| !text.is_empty())
                .collect();
            Value::String(format!("{}:{}", digits[..4].join("."), number(digits[4]).unwrap()))
        }
        _ if rust.starts_with("Ipv4Addr::new(") => {
            let numbers = rust.trim_start_matches("Ipv4Addr::new(").trim_end_matches(')');
            Value::String(numbers.replace(", ", "."))
        }
        _ if literals.len() == 1 => Value::String(literals[0].to_owned()),
        // A word of a list of words, as `Driver::Auto`.
        _ if rust.contains("::") => Value::String(rust.rsplit("::").next().unwrap().to_lowercase()),
        _ => match rust.split_once("<<") {
            Some((number_text, shift)) => {
                Value::Integer(number(number_text).unwrap() << number(shift).unwrap())
            }
            None => Value::Integer(number(rust).unwrap_or_else(|| panic!("can't read the default `{rust}`"))),
        },
    };
    Some(value)
}

#[test]
fn the_shipped_configuration_documents_every_key_and_equals_the_defaults() {
    let text = read("dist/config/nexushub.toml");
    let shipped: Table = text.parse().unwrap();
    let in_comment = |key: &str| {
        text.lines().any(|line| line.trim_start_matches(['#', '[']).starts_with(key) && line.starts_with('#'))
    };
    for (table, file, name) in TABLES {
        let keys = shipped.get(table).unwrap_or_else(|| panic!("[{table}] is not there")).as_table().unwrap();
        let defaults = defaults(&code(file).0.join("\n"), name);
        for (key, default) in &defaults {
            match (keys.get(key), default) {
                (Some(said), Some(default)) => assert_eq!(said, default, "{table}.{key}"),
                (None, None) => assert!(in_comment(&format!("{key} = ")), "{table}.{key} is not documented"),
                (None, Some(Value::Array(empty))) if empty.is_empty() => {
                    assert!(in_comment(&format!("{table}.{key}]]")), "{table}.{key}");
                }
                (said, default) => {
                    panic!("{table}.{key}: the file says {said:?}, the default is {default:?}")
                }
            }
        }
        let stray = keys.keys().find(|key| !defaults.contains_key(*key));
        assert_eq!(stray, None, "{table} has no such key");
    }
    for (file, name) in DOCUMENTED {
        let keys = fields(&code(file).0.join("\n"), name).into_keys();
        for key in keys.filter(|key| !NESTED.contains(&key.as_str())) {
            assert!(in_comment(&format!("{key} = ")), "{name}.{key} is not documented");
        }
    }
    let stray = shipped.keys().find(|table| !TABLES.iter().any(|(known, ..)| known == *table));
    assert_eq!(stray, None, "there is no such table");
}

#[test]
fn every_key_of_the_shipped_configuration_is_explained_above_it() {
    let text = read("dist/config/nexushub.toml");
    let lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
    };
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_key(line)) {
        assert!(lines[at - 1].starts_with("# "), "no comment above {line}");
    }
}

// ---------------------------------------------------------------- units

/// The values of a unit's key, lists taken apart.
fn values(unit: &str, key: &str) -> BTreeSet<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|value| value.split_whitespace()).map(str::to_owned).collect()
}

fn unit(name: &str) -> String {
    read(&format!("dist/systemd/units/{name}"))
}

/// The socket units of a daemon: name, and the names of descriptor and socket.
fn sockets(daemon: &Daemon) -> Vec<(String, String, Option<String>)> {
    let mut sockets: Vec<_> = daemon
        .sockets
        .iter()
        .map(|(fd, file)| {
            let suffix = if *fd == "grpc" { String::new() } else { format!("-{fd}") };
            (
                format!("nexushub-{}{suffix}.socket", daemon.name),
                (*fd).to_owned(),
                Some(format!("/run/nexushub/{file}")),
            )
        })
        .collect();
    if daemon.https {
        sockets.push((format!("nexushub-{}-https.socket", daemon.name), "https".to_owned(), None));
    }
    sockets
}

#[test]
fn every_daemon_has_its_sockets_as_units_and_every_unit_a_daemon() {
    let mut expected = BTreeSet::new();
    for daemon in DAEMONS {
        let service = unit(&format!("nexushub-{}.service", daemon.name));
        let mut names = BTreeSet::new();
        for (name, fd, path) in sockets(&daemon) {
            let socket = unit(&name);
            assert_eq!(values(&socket, "FileDescriptorName"), BTreeSet::from([fd]), "{name}");
            assert!(path.is_none_or(|path| values(&socket, "ListenStream").contains(&path)), "{name}");
            assert!(
                values(&socket, "Service").contains(&format!("nexushub-{}.service", daemon.name)),
                "{name}"
            );
            names.insert(name);
        }
        assert_eq!(values(&service, "Sockets"), names, "{}", daemon.name);
        assert!(
            values(&service, "ExecStart")
                .iter()
                .any(|path| path.ends_with(&format!("/nexushub-{}", daemon.name)))
        );
        expected.extend(names);
    }
    let there = fs::read_dir(root().join("dist/systemd/units"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap());
    let there: BTreeSet<String> = there.filter(|name| name.ends_with(".socket")).collect();
    assert_eq!(there, expected);
    let supervised = read("dist/systemd/supervised/nexushub.socket");
    assert_eq!(values(&supervised, "FileDescriptorName"), BTreeSet::from(["https".to_owned()]));
    let address = values(&unit("nexushub-proxy-https.socket"), "ListenStream");
    assert_eq!(values(&supervised, "ListenStream"), address);
}

#[test]
fn every_unit_is_given_the_credentials_that_its_daemon_was_granted_and_no_others() {
    for daemon in DAEMONS {
        let mut names = vec!["accept".to_owned()];
        names.extend(
            GRANTS
                .iter()
                .filter(|(caller, ..)| *caller == daemon.name)
                .map(|(_, server, _)| format!("token.{server}")),
        );
        names.extend((daemon.name == "procmgr").then(|| "app-key".to_owned()));
        let expected: BTreeSet<String> = names
            .iter()
            .map(|name| format!("{name}:/run/nexushub/credentials/{}/{name}", daemon.name))
            .collect();
        let service = unit(&format!("nexushub-{}.service", daemon.name));
        assert_eq!(values(&service, "LoadCredential"), expected, "{}", daemon.name);
        assert!(
            values(&service, "Environment").contains("RUNTIME_DIRECTORY=/run/nexushub"),
            "{}",
            daemon.name
        );
        assert_eq!(values(&service, "Type"), BTreeSet::from(["notify".to_owned()]), "{}", daemon.name);
    }
}
