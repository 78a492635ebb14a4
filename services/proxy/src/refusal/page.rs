//! The words of a refusal in the form that its reader takes: a page for browsers, JSON for programs that ask for it, a line of text
//! for everybody else, as the first implementation sent it to all.

use http::{HeaderMap, StatusCode, header::ACCEPT};
use serde_json::json;

/// How the words are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Text,
    Json,
    Page,
}

/// Media ranges of one request that are looked at.
const RANGES: usize = 32;

impl Form {
    /// The one that a request asks for (RFC 9110, 12.5.1): of those that it names, the one that it likes best, the first of
    /// equals; text where it likes anything else better, or names none.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let (mut best, mut any) = ((0, Self::Text), 0);
        for range in fields.flat_map(|field| field.split(',')).take(RANGES) {
            let (kind, weight) = weighed(range);
            let form = match kind.as_str() {
                "text/html" => Self::Page,
                "application/json" => Self::Json,
                "text/plain" => Self::Text,
                "*/*" | "text/*" => {
                    any = any.max(weight);
                    continue;
                }
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, form);
            }
        }
        if any > best.0 { Self::Text } else { best.1 }
    }

    /// Of the body.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Page => "text/html; charset=utf-8",
        }
    }

    /// The body: a status, words about it, and the number by which the log knows the request.
    pub(crate) fn write(self, status: StatusCode, text: &str, id: &str) -> String {
        match self {
            Self::Text => format!("{text}\n"),
            Self::Json => {
                format!("{}\n", json!({ "status": status.as_u16(), "message": text, "request_id": id }))
            }
            Self::Page => page(status, text, id),
        }
    }
}

/// A media range in lower case without its parameters, and its weight in thousandths.
fn weighed(range: &str) -> (String, u32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (kind, weight.map_or(1000, thousandths))
}

/// `0.85` in thousandths; what is no weight counts nothing.
fn thousandths(weight: &str) -> u32 {
    let (whole, rest) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "1" => 1000,
        "0" if rest.len() <= 3 && digits(rest) => format!("{rest:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

fn page(status: StatusCode, text: &str, id: &str) -> String {
    let (title, text, id) = (status.to_string(), escaped(text), escaped(id));
    let title = escaped(&title);
    format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
body {{ display: grid; min-height: 90vh; place-content: center; padding: 1rem }}
h1 {{ font-size: 1.4rem; margin: 0 }}
small {{ opacity: .7 }}
</style>
<main>
<h1>{title}</h1>
<p>{text}</p>
<p><small>Request {id}</small></p>
</main>
</html>
"
    )
}

/// Text that is no markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn form(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Form::of(&headers)
    }

    #[test]
    fn each_reader_gets_what_it_likes_best_and_who_does_not_care_a_line() {
        for (accept, expected) in [
            ("*/*", Form::Text),
            ("", Form::Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Form::Page),
            ("application/json, text/plain, */*", Form::Json),
            ("text/plain, application/json", Form::Text),
            ("application/json;q=0.5, text/html;q=0.9", Form::Page),
            ("application/json;q=0.5, */*", Form::Text),
            ("text/html;q=0", Form::Text),
            ("text/html; level=1; q=0.7, APPLICATION/JSON;Q=0.71", Form::Json),
            ("image/png", Form::Text),
            ("text/html;q=nonsense", Form::Text),
            ("text/html;q=1.000", Form::Page),
        ] {
            assert_eq!(form(accept), expected, "{accept}");
        }
        assert_eq!(Form::of(&HeaderMap::new()), Form::Text);
    }

    #[test]
    fn every_form_has_the_words_and_the_number_and_none_is_markup() {
        let write = |form: Form| form.write(StatusCode::NOT_FOUND, "no <b>\"x\"</b> & 'y'", "id-1");
        assert_eq!(write(Form::Text), "no <b>\"x\"</b> & 'y'\n");
        let json: serde_json::Value = serde_json::from_str(&write(Form::Json)).unwrap();
        assert_eq!((&json["status"], &json["request_id"]), (&404.into(), &"id-1".into()));
        assert_eq!(json["message"], "no <b>\"x\"</b> & 'y'");
        let page = write(Form::Page);
        assert!(page.contains("<h1>404 Not Found</h1>") && page.contains("Request id-1"));
        assert!(page.contains("no &lt;b&gt;&quot;x&quot;&lt;/b&gt; &amp; &#39;y&#39;"), "{page}");
    }

    proptest! {
        #[test]
        fn hostile_fields_never_panic(accept in "[ -~]{0,200}") {
            form(&accept);
        }

        #[test]
        fn hostile_words_never_become_markup(text in ".{0,100}") {
            let page = Form::Page.write(StatusCode::NOT_FOUND, &text, "id");
            prop_assert_eq!(page.matches('<').count(), Form::Page.write(StatusCode::NOT_FOUND, "", "id").matches('<').count());
        }
    }
}
