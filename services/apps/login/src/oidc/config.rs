//! What the login app is told of an identity provider: `OIDC_*` of its environment. None of it is fine; a part of it is a mistake
//! that is said clearly, and people sign in by password alone.

use nexushub_applib::web::{Authorities, Url};

/// The claim that everybody knows, and that counts only when the provider has verified it.
pub(crate) const EMAIL: &str = "email";
/// What is asked for unless something else is wanted.
const SCOPES: &str = "openid email profile";
/// Characters of what the button says.
const NAME_MAX: usize = 64;
/// Every name that is looked at.
const NAMES: [&str; 8] = [
    "OIDC_ISSUER",
    "OIDC_CLIENT_ID",
    "OIDC_CLIENT_SECRET",
    "OIDC_NAME",
    "OIDC_CLAIM",
    "OIDC_SCOPES",
    "OIDC_CA_FILE",
    "OIDC_CA",
];

/// An identity provider, and what this platform is to it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Who it is, to the letter.
    pub issuer: Url,
    /// Who this platform is to it.
    pub client: String,
    /// By which it proves that; none of a public client.
    pub secret: Option<String>,
    /// What people call it.
    pub name: String,
    /// The claim that is a user's name in admin.
    pub claim: String,
    /// What is asked for.
    pub scopes: String,
    /// Authorities besides the system's.
    pub authorities: Authorities,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Config").field(&self.issuer.as_str()).field(&self.client).finish()
    }
}

impl Config {
    /// Reads the variables; none when there are none.
    ///
    /// # Errors
    /// What is wrong with them, and what to do.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let text =
            |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if NAMES.iter().all(|name| text(name).is_none()) {
            return Ok(None);
        }
        let needed =
            |name: &str| text(name).ok_or_else(|| format!("{name} is not set, but others of OIDC_* are"));
        let (issuer, client) = (needed("OIDC_ISSUER")?, needed("OIDC_CLIENT_ID")?);
        let issuer = judged(&issuer)?;
        let name = text("OIDC_NAME").unwrap_or_else(|| issuer.host().to_owned());
        if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(format!("OIDC_NAME has to be at most {NAME_MAX} characters on one line"));
        }
        let scopes = text("OIDC_SCOPES").unwrap_or_else(|| SCOPES.to_owned());
        if !scopes.split(' ').any(|scope| scope == "openid") || !scopes.bytes().all(is_of_scopes) {
            return Err(
                "OIDC_SCOPES has to be words with blanks between them, `openid` among them".to_owned()
            );
        }
        let authorities = match (text("OIDC_CA_FILE"), text("OIDC_CA")) {
            (None, None) => Authorities::System,
            (Some(path), None) => Authorities::File(path.into()),
            (None, Some(pem)) => Authorities::Text(pem),
            (Some(_), Some(_)) => return Err("OIDC_CA_FILE and OIDC_CA are one too many".to_owned()),
        };
        Ok(Some(Self {
            issuer,
            client,
            secret: text("OIDC_CLIENT_SECRET"),
            name,
            claim: text("OIDC_CLAIM").unwrap_or_else(|| EMAIL.to_owned()),
            scopes,
            authorities,
        }))
    }
}

fn judged(issuer: &str) -> Result<Url, String> {
    let why = "OIDC_ISSUER has to be an https:// URL without a query, or http:// with a loopback address";
    let url = Url::parse(issuer).filter(|_| !issuer.contains('?'));
    url.ok_or_else(|| format!("{why}; it is `{}`", issuer.escape_debug()))
}

/// What RFC 6749 (3.3) has in a scope, and the blank.
fn is_of_scopes(byte: u8) -> bool {
    matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Config>, String> {
        let find =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
        Config::read(find)
    }

    const HALF: [(&str, &str); 2] = [("OIDC_ISSUER", "https://op.example/realm"), ("OIDC_CLIENT_ID", "hub")];

    #[test]
    fn nothing_is_off_and_two_variables_are_enough() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("OIDC_ISSUER", ""), ("OIDC_NAME", " ")]).unwrap(), None, "empty is not set");
        let config = read(&HALF).unwrap().unwrap();
        assert_eq!((config.name.as_str(), config.claim.as_str()), ("op.example", "email"));
        assert_eq!((config.scopes.as_str(), config.secret), ("openid email profile", None));
    }

    #[test]
    fn what_is_said_is_taken_and_the_secret_is_not_shown() {
        let more = [
            ("OIDC_CLIENT_SECRET", "hush"),
            ("OIDC_NAME", "Example"),
            ("OIDC_CLAIM", "preferred_username"),
            ("OIDC_SCOPES", "profile openid"),
            ("OIDC_CA_FILE", "/db/ca.pem"),
        ];
        let config = read(&[&HALF[..], &more].concat()).unwrap().unwrap();
        assert_eq!((config.secret.as_deref(), config.name.as_str()), (Some("hush"), "Example"));
        assert_eq!((config.claim.as_str(), config.scopes.as_str()), ("preferred_username", "profile openid"));
        assert_eq!(config.authorities, Authorities::File("/db/ca.pem".into()));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn authorities_are_the_systems_those_of_a_file_or_those_that_are_written_out() {
        let of = |more: &[(&str, &str)]| {
            read(&[&HALF[..], more].concat()).map(|config| config.unwrap().authorities)
        };
        let (file, text) = (("OIDC_CA_FILE", "/ca.pem"), ("OIDC_CA", "-----BEGIN\n"));
        assert_eq!(of(&[]), Ok(Authorities::System));
        assert_eq!(of(&[file]), Ok(Authorities::File("/ca.pem".into())));
        assert_eq!(of(&[text]), Ok(Authorities::Text("-----BEGIN".into())));
        assert!(of(&[file, text]).unwrap_err().starts_with("OIDC_CA_FILE and OIDC_CA"));
    }

    #[test]
    fn half_a_configuration_or_a_wrong_one_says_which_variable_it_is() {
        let long = "x".repeat(NAME_MAX + 1);
        for (name, text) in [
            ("OIDC_ISSUER", ""),
            ("OIDC_ISSUER", "op.example"),
            ("OIDC_ISSUER", "http://op.example"),
            ("OIDC_ISSUER", "https://op.example/?a"),
            ("OIDC_ISSUER", "https://op.example/#a"),
            ("OIDC_CLIENT_ID", ""),
            ("OIDC_NAME", "a\u{7}b"),
            ("OIDC_NAME", &long),
            ("OIDC_SCOPES", "email"),
            ("OIDC_SCOPES", "openid \"x\""),
            ("OIDC_SCOPES", "openid\temail"),
        ] {
            let changed = [&[(name, text)], &HALF[..]].concat();
            assert!(read(&changed).unwrap_err().starts_with(name), "{name} {text}");
        }
        assert!(read(&[("OIDC_CLIENT_SECRET", "x")]).is_err(), "a half is no nothing");
    }
}
