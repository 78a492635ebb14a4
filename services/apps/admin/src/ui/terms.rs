//! The part of an app's configuration that says who may call it and what it may use: as a form, and as a form says it.

use std::collections::{HashMap, HashSet};

use maud::{Markup, html};
use nexushub_applib::Refusal;

use super::Sent;
use crate::{
    store::Application,
    terms::{Limits, Terms, Wished, bytes, number, size},
};

/// Who may call an app: people name a caller by its host name, who is kept by its id.
pub(crate) struct Callers {
    /// The ids of the table's apps, by host name.
    ids: HashMap<String, String>,
    /// The ids that are kept with the app.
    kept: HashSet<String>,
}

impl Callers {
    /// Those of the app with this id.
    pub(crate) fn of(apps: &[Application], id: &str) -> Self {
        let ids = apps.iter().map(|app| (app.host_name.clone(), app.instance_id.clone())).collect();
        let terms = apps.iter().filter(|app| app.instance_id == id).map(|app| &app.terms);
        let kept = terms.flat_map(|terms| terms.callers.iter().chain(&terms.internal_callers));
        Self { ids, kept: kept.cloned().collect() }
    }

    /// An id that is kept stays one: it may be another app's host name, which is not let in because somebody saved the page.
    fn id<'a>(&'a self, word: &'a str) -> &'a str {
        let named = self.ids.get(&word.to_ascii_lowercase()).filter(|_| !self.kept.contains(word));
        named.map_or(word, String::as_str)
    }

    /// A line each, as they are read again.
    fn lines(&self, ids: &[String]) -> String {
        let name = |id: &String| {
            let named = self.ids.iter().find(|(host, named)| *named == id && !self.kept.contains(*host));
            named.map_or_else(|| id.clone(), |(host, _)| host.clone())
        };
        ids.iter().map(name).collect::<Vec<_>>().join("\n")
    }
}

/// The fields, folded away where nothing is said.
pub(crate) fn fields(terms: &Terms, callers: &Callers) -> Markup {
    let lines = |id: &str, name: &str, label: &str, more: &str, text: &str| {
        html! {
            label for=(id) { (label) " " small { (more) } }
            textarea id=(id) name=(name) rows="2" autocapitalize="none" spellcheck="false" { (text) }
        }
    };
    let Limits { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes } =
        terms.limits;
    let bound = |id: &str, name: &str, label: &str, value: Option<String>| {
        html! {
            div {
                label for=(id) { (label) }
                input id=(id) name=(name) value=(value.unwrap_or_default()) maxlength="24" placeholder="default" autocomplete="off";
            }
        }
    };
    let count = |value: Option<u64>| value.map(|value| value.to_string());
    let said = *terms != Terms::default();
    html! {
        details open[said] {
            summary { "Who may call it, and what it may use" }
            (lines("callers", "callers", "Apps that may ask for its /api", "host names, a line each", &callers.lines(&terms.callers)))
            (lines("internal", "internalCallers", "Apps that may ask for its /internal", "host names, a line each",
                &callers.lines(&terms.internal_callers)))
            (lines("cors", "cors", "Origins whose scripts may ask for it", "https://…, a line each", &terms.cors.join("\n")))
            div.bounds {
                (bound("memory", "memory", "Memory", memory_bytes.map(size)))
                (bound("cpu", "cpu", "Processor, % of a core", count(cpu_percent)))
                (bound("processes", "processes", "Processes and threads", count(processes)))
                (bound("files", "files", "Open files", count(open_files)))
                (bound("data", "data", "Data", data_bytes.map(size)))
                (bound("tmp", "tmp", "/tmp", tmp_bytes.map(size)))
                (bound("log", "log", "Log", log_bytes.map(size)))
            }
            p.hint { "What is left empty is as the platform has it for every app. Another limit starts the app anew beside the old one." }
        }
    }
}

/// What the form says; of a form without these fields, as one of an earlier version is, nothing.
pub(crate) fn wished(sent: &Sent, callers: &Callers) -> Result<Wished, Refusal> {
    let list = |name: &str| {
        let words = sent.given(name)?.split([',', ' ', '\n', '\r', '\t']);
        Some(words.filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>())
    };
    let ids =
        |name: &str| list(name).map(|words| words.iter().map(|word| callers.id(word).to_owned()).collect());
    let limits = || {
        Ok::<_, Refusal>(Limits {
            memory_bytes: bytes(sent.field("memory"))?,
            cpu_percent: number(sent.field("cpu"))?,
            processes: number(sent.field("processes"))?,
            open_files: number(sent.field("files"))?,
            data_bytes: bytes(sent.field("data"))?,
            tmp_bytes: bytes(sent.field("tmp"))?,
            log_bytes: bytes(sent.field("log"))?,
        })
    };
    Ok(Wished {
        callers: ids("callers"),
        internal_callers: ids("internalCallers"),
        cors: list("cors"),
        limits: sent.given("memory").map(|_| limits()).transpose()?,
    })
}
