//! The token of forms: proves that a form was made by this app for this visitor, so that no other site can send it for them.
//! ```
//! # let secret = "s3cret";
//! use nexushub_applib::csrf::Csrf;
//!
//! let csrf = Csrf::of(secret); // INTERNAL_SECRET
//! let field = format!("<input type=\"hidden\" name=\"csrf\" value=\"{}\">", csrf.token("session 1"));
//! # assert!(field.len() > 60);
//! assert!(csrf.holds("session 1", &csrf.token("session 1")) && !csrf.holds("session 2", &csrf.token("session 1")));
//! ```

use aws_lc_rs::hmac;

use crate::text;

/// Makes and checks the tokens of an app; every process of the app makes the same.
#[derive(Clone)]
pub struct Csrf(hmac::Key);

impl Csrf {
    /// Of an app with this secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, format!("csrf {secret}").as_bytes()))
    }

    /// The token for a visitor: bound to a session, or to a random cookie where there is none yet.
    #[must_use]
    pub fn token(&self, visitor: &str) -> String {
        text::base64url(hmac::sign(&self.0, visitor.as_bytes()).as_ref())
    }

    /// Whether this is the visitor's token.
    #[must_use]
    pub fn holds(&self, visitor: &str, token: &str) -> bool {
        !visitor.is_empty() && text::same(self.token(visitor).as_bytes(), token.as_bytes())
    }
}

impl std::fmt::Debug for Csrf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csrf")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_visitor_and_its_app_only() {
        let (app, other) = (Csrf::of("one"), Csrf::of("two"));
        let token = app.token("zoe");
        assert!(app.holds("zoe", &token) && Csrf::of("one").holds("zoe", &token));
        assert!(!app.holds("bob", &token) && !other.holds("zoe", &token) && !app.holds("zoe", ""));
        assert!(!app.holds("", &app.token("")), "nobody has no token");
    }
}
