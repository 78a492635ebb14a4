//! What the proxy counts of the applications that were pushed: for who watches them, of whom some are elsewhere. Of what else runs
//! here the operator is told, and the admin app. Pure, but for asking.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::{applications::Hub, error::ApiError};

/// Text exposition format 0.0.4.
const FORM: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /debug/metrics`
pub(crate) async fn show(State(hub): State<Arc<Hub>>) -> Result<Response, ApiError> {
    let counted =
        hub.house.metrics().await.map_err(|status| ApiError::Uncounted(status.message().to_owned()))?;
    let pushed: BTreeSet<String> = hub.list().iter().map(|app| app.id.clone()).collect();
    let headers = [(header::CONTENT_TYPE, FORM), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, of(&counted, &pushed)).into_response())
}

/// The lines about these instances, with what is said first of each figure that they tell.
fn of(counted: &str, ids: &BTreeSet<String>) -> String {
    let id = |line: &str| {
        line.split_once('{').and_then(|(_, labels)| label(labels, "instance")).map(str::to_owned)
    };
    let (mut told, mut first, mut of_before) = (String::new(), String::new(), true);
    for line in counted.split_inclusive('\n') {
        if line.starts_with('#') {
            if std::mem::take(&mut of_before) {
                first.clear();
            }
            first.push_str(line);
            continue;
        }
        of_before = true;
        if id(line).is_some_and(|id| ids.contains(&id)) {
            told.push_str(&std::mem::take(&mut first));
            told.push_str(line);
        }
    }
    told
}

/// The value of a label; ids and classes need no escapes.
pub(crate) fn label<'t>(labels: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = labels;
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"')?;
        if key.trim_start_matches(',') == name {
            return Some(value);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_of_others_is_not_told() {
        let counted = "# HELP x Requests.\n# TYPE x counter\nx{instance=\"a\",class=\"2xx\"} 1\nx{instance=\"b\"} 2\n\
                       # TYPE v gauge\nv{instance=\"b\"} 5\n# TYPE y histogram\ny{instance=\"b\"} 6\n\
                       y{le=\"1\",instance=\"a\"} 3\nz 4\nx{instance=\"a";
        let told = of(counted, &BTreeSet::from(["a".to_owned()]));
        let expected = "# HELP x Requests.\n# TYPE x counter\nx{instance=\"a\",class=\"2xx\"} 1\n\
                        # TYPE y histogram\ny{le=\"1\",instance=\"a\"} 3\n";
        assert_eq!(told, expected);
        assert_eq!(of(counted, &BTreeSet::new()), "");
    }
}
