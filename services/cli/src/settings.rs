//! `nexushub config`: what holds here, whether it can be, and what there is to say. The shipped file is the one source of every key,
//! its default and what it is for.

use std::fmt::Write;

use clap::{Args, Subcommand};
use nexushub_launch::config::Config as File;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use crate::{
    args::Output,
    check::{self, Check},
    failure::{Failure, OK},
    out,
    place::Place,
    shapes,
};

/// Every key with its default as its value, and what it is for above it.
const SHIPPED: &str = include_str!("../../../dist/config/nexushub.toml");
/// What stands where a value may be a secret.
const HIDDEN: &str = "(hidden)";

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print what holds: the file, its profile and the defaults, as one file
    ///
    /// Values that are not the default are marked. The environment of apps is not shown: there may be secrets in it.
    #[command(after_long_help = shapes::CONFIG)]
    Show(Show),
    /// Judge the configuration and the files it names
    #[command(after_long_help = shapes::CHECK)]
    Check(Check),
    /// Print every key with its type, its default and what it is for, as JSON Schema
    Schema,
}

#[derive(Debug, Args)]
struct Show {
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// `nexushub config`
pub(crate) fn run(place: &Place, args: &Config) -> Result<u8, Failure> {
    match &args.command {
        What::Check(check) => return check::run(place, check),
        What::Schema => out::say(&serde_json::to_string_pretty(&schema()).unwrap_or_default())?,
        What::Show(show) => {
            let file = place.config()?;
            match show.output {
                Output::Table => out::write(text(&file)?.as_bytes())?,
                Output::Json => out::say(&serde_json::to_string_pretty(&report(&file)?).unwrap_or_default())?,
            }
        }
    }
    Ok(OK)
}

/// One key of the shipped file.
#[derive(Debug, PartialEq)]
struct Key {
    /// The tables it stands in.
    path: Vec<String>,
    name: String,
    about: String,
    sample: Value,
    /// Whether the sample is the default; else there is none.
    default: bool,
}

/// Every key of the shipped file, and the paths of the tables of which there may be several.
fn shipped() -> (Vec<Key>, Vec<Vec<String>>) {
    let (mut keys, mut lists) = (Vec::new(), Vec::new());
    let (mut path, mut about) = (Vec::new(), Vec::new());
    for line in SHIPPED.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let parsed = bare.parse::<Table>().ok().filter(|table| !table.is_empty());
        if bare.starts_with("[profile") {
            break;
        }
        match (bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), parsed) {
            (Some(header), _) => {
                let list = header.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                path = list.unwrap_or(header).split('.').map(str::to_owned).collect();
                lists.extend(list.map(|_| path.clone()));
                about.clear();
            }
            (None, Some(table)) if !bare.starts_with(' ') => {
                let about = std::mem::take(&mut about).join(" ");
                let key = |(name, sample)| Key {
                    path: path.clone(),
                    name,
                    about: about.clone(),
                    sample,
                    default: !line.starts_with('#'),
                };
                keys.extend(table.into_iter().map(key));
            }
            _ if line.is_empty() => about.clear(),
            _ => about.push(bare.trim()),
        }
    }
    (keys, lists)
}

/// The tables in the order of the shipped file.
fn tables() -> Vec<String> {
    let mut tables: Vec<String> =
        shipped().0.into_iter().filter_map(|key| key.path.into_iter().next()).collect();
    tables.dedup();
    tables
}

/// The defaults of a table.
fn defaults(table: &str) -> Table {
    let all: Table = SHIPPED.parse().unwrap_or_default();
    all.get(table).and_then(Value::as_table).cloned().unwrap_or_default()
}

/// The default of a key, by its path in its table.
pub(crate) fn default_of(table: &str, key: &str) -> Option<Value> {
    let table = Value::Table(defaults(table));
    key.split('.').try_fold(&table, |value, key| value.get(key)).cloned()
}

/// What matters of a table elsewhere: what is said, else the default.
pub(crate) fn held<T: DeserializeOwned>(file: &File, table: &str) -> Result<T, Failure> {
    let held = Value::Table(holds(file, table)?).try_into();
    held.map_err(|error| Failure::new(format!("[{table}] can't be: {error}"), "see nexushub config check"))
}

/// A table as it holds here: what is said over what is default, and nothing that may be a secret.
fn holds(file: &File, table: &str) -> Result<Table, Failure> {
    let said: Table = file.section(table)?;
    let mut holds = defaults(table);
    holds.extend(said);
    holds.iter_mut().for_each(|(key, value)| hide(key, value));
    Ok(holds)
}

fn hide(key: &str, value: &mut Value) {
    match value {
        Value::Table(table) if key == "env" => {
            table.iter_mut().for_each(|(_, value)| *value = Value::String(HIDDEN.into()));
        }
        Value::Table(table) => table.iter_mut().for_each(|(key, value)| hide(key, value)),
        Value::Array(all) => all.iter_mut().for_each(|value| hide(key, value)),
        _ => {}
    }
}

/// For people, and as a file.
pub(crate) fn text(file: &File) -> Result<String, Failure> {
    let named =
        file.path.as_ref().map_or_else(|| "the defaults".to_owned(), |path| path.display().to_string());
    let mut text = format!("# {named}\n");
    for table in tables() {
        let (defaults, holds) = (defaults(&table), holds(file, &table)?);
        let _ = write!(text, "\n[{table}]\n");
        let (nested, plain): (Vec<_>, Vec<_>) = holds.into_iter().partition(|(_, value)| is_nested(value));
        for (key, value) in plain {
            let mark = match defaults.get(&key) {
                Some(default) if *default == value => String::new(),
                Some(default) => format!(" # default: {default}"),
                None => " # no default".to_owned(),
            };
            let _ = writeln!(text, "{key} = {value}{mark}");
        }
        for (key, value) in nested {
            let one = Table::from_iter([(table.clone(), Value::Table(Table::from_iter([(key, value)])))]);
            let written = toml::to_string(&one).unwrap_or_default();
            let _ = write!(text, "\n{}", written.strip_prefix(&format!("[{table}]\n")).unwrap_or(&written));
        }
    }
    Ok(text)
}

fn is_nested(value: &Value) -> bool {
    value.is_table() || value.as_array().is_some_and(|all| all.iter().any(Value::is_table))
}

/// For programs; fields are only ever added.
fn report(file: &File) -> Result<Json, Failure> {
    let mut all = Map::new();
    for table in tables() {
        let holds = serde_json::to_value(holds(file, &table)?).unwrap_or_default();
        all.insert(table, holds);
    }
    Ok(json!({"version": 1, "file": file.path, "root": file.root, "tables": all}))
}

/// Every key, as JSON Schema.
fn schema() -> Json {
    let (keys, lists) = shipped();
    let mut root = object();
    for key in keys {
        let mut at = &mut root;
        for depth in 1..=key.path.len() {
            let is_list = lists.contains(&key.path[..depth].to_vec());
            at = below(at, &key.path[depth - 1], is_list);
        }
        let mut one = json!({"type": kind(&key.sample), "description": key.about});
        let sample = serde_json::to_value(&key.sample).unwrap_or_default();
        one[if key.default { "default" } else { "examples" }] =
            if key.default { sample } else { json!([sample]) };
        if key.path.last().is_some_and(|last| last == "env") {
            at["additionalProperties"] = json!({"type": "string"});
        } else {
            at["properties"][key.name] = one;
        }
    }
    let profile = json!({"type": "object", "properties": root["properties"], "additionalProperties": false});
    let profiles = ["development", "staging", "production"].map(|name| (name.to_owned(), profile.clone()));
    root["properties"]["profile"] = object();
    root["properties"]["profile"]["properties"] = Json::Object(profiles.into_iter().collect());
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "nexushub.toml".into();
    root
}

fn object() -> Json {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

/// The table of that name in a table, made if need be; of a list what each of its tables is.
fn below<'j>(at: &'j mut Json, name: &str, is_list: bool) -> &'j mut Json {
    let place = &mut at["properties"][name];
    if place.is_null() {
        *place = if is_list { json!({"type": "array", "items": object()}) } else { object() };
    }
    if is_list { &mut place["items"] } else { place }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Boolean(_) => "boolean",
        Value::Array(_) => "array",
        Value::Table(_) => "object",
        Value::String(_) | Value::Datetime(_) => "string",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(text: &str) -> File {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nexushub.toml");
        std::fs::write(&path, text).unwrap();
        File::load(Some(&path), folder.path()).unwrap()
    }

    #[test]
    fn what_holds_is_told_over_the_defaults_and_marked_where_it_is_none() {
        let text = text(&file(
            "[platform]\nlisten = '[::1]:1'\n[profile.development.proxy]\nhandshake_timeout_ms = 7\n",
        ))
        .unwrap();
        assert!(text.contains("listen = \"[::1]:1\" # default: \"127.0.0.1:8443\"\n"), "{text}");
        assert!(text.contains("base_domain = \"yesterday.localhost\"\n"), "{text}");
        assert!(text.parse::<Table>().is_ok(), "it is a file that could be used");
        let report = report(&file("")).unwrap();
        let bare = json!({"tables": "", "version": report["version"], "file": report["file"], "root": report["root"]});
        shapes::tests::is_as_told(shapes::CONFIG, &bare);
        assert_eq!(report.as_object().map(Map::len), Some(4));
        let unchanged = super::text(&file(SHIPPED)).unwrap();
        assert!(!unchanged.contains("# default:"), "{unchanged}");
    }

    #[test]
    fn what_may_be_a_secret_is_hidden_in_either_form() {
        let file = file(
            "[[provider.instance]]\nid = 'a'\nhost_name = 'a'\nrelease = 'r'\n[provider.instance.env]\nKEY = 'hush'\n",
        );
        let (text, report) = (text(&file).unwrap(), report(&file).unwrap().to_string());
        for told in [text, report] {
            assert!(!told.contains("hush") && told.contains(HIDDEN) && told.contains("KEY"), "{told}");
        }
    }

    #[test]
    fn every_key_has_a_type_and_says_what_it_is_for() {
        let schema = schema();
        let listen = &schema["properties"]["platform"]["properties"]["listen"];
        assert_eq!((&listen["type"], &listen["default"]), (&"string".into(), &"127.0.0.1:8443".into()));
        assert_eq!(
            listen["description"],
            "Address of the HTTPS listener. With systemd, the socket unit's address has to be the same."
        );
        let instance = &schema["properties"]["provider"]["properties"]["instance"];
        let of = &instance["items"]["properties"];
        assert_eq!((&instance["type"], &of["id"]["type"]), (&"array".into(), &"string".into()));
        assert_eq!(of["limits"]["properties"]["cpu_percent"]["type"], "integer");
        assert_eq!(of["env"]["additionalProperties"]["type"], "string");
        let production = &schema["properties"]["profile"]["properties"]["production"];
        assert!(production["properties"]["proxy"]["properties"]["certificate"].is_object());
        let all: Table = SHIPPED.parse().unwrap();
        for (table, keys) in &all {
            for key in keys.as_table().unwrap().keys() {
                let told = &schema["properties"][table]["properties"][key];
                assert!(told["description"].as_str().is_some_and(|about| !about.is_empty()), "{table}.{key}");
            }
        }
    }
}
