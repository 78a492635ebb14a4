//! One line of JSON, written by hand: enough for log lines, start-up errors and the status file.

use std::fmt::Write;

/// An object under construction; fields keep their order.
#[derive(Debug, Default, Clone)]
pub struct Object(String);

impl Object {
    /// An empty object.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        let quoted = quote(value);
        self.raw(key, &quoted)
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, key: &str, value: impl Into<i128>) -> Self {
        let value: i128 = value.into();
        self.raw(key, &value.to_string())
    }

    /// Adds a value that is JSON already.
    #[must_use]
    pub fn raw(mut self, key: &str, json: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.push_str(comma);
        self.0.push_str(&quote(key));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// The finished text, without a newline.
    #[must_use]
    pub fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// A JSON array of values that are JSON already.
#[must_use]
pub fn array(items: &[String]) -> String {
    format!("[{}]", items.join(","))
}

/// A JSON string literal.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_one_json_line() {
        let line = Object::new().text("a\"b", "x\n\u{1}\\").number("n", 3_i64).finish();
        assert_eq!(line, r#"{"a\"b":"x\n\u0001\\","n":3}"#);
    }
}
