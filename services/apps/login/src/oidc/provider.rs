//! What an identity provider says of itself, judged, and what it is asked: the URL that a browser is sent to, and the form by which
//! a code is redeemed. Pure.

use axum::http::HeaderValue;
use data_encoding::BASE64;
use nexushub_applib::{
    text::{base64url, digest, percent},
    web::Url,
};
use serde::Deserialize;

use crate::oidc::config::Config;

/// Why a provider can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its discovery document is none")]
    Garbled,
    #[error(
        "its discovery document is of another issuer, `{0}`; OIDC_ISSUER has to be the same to the letter"
    )]
    Issuer(String),
    #[error("its {0} is no https:// URL")]
    Endpoint(&'static str),
    #[error("it does not offer {0}")]
    Lacks(&'static str),
}

/// How this platform proves to it who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Basic,
    Post,
}

/// A provider that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    authorization: Url,
    /// Where codes are redeemed.
    pub token: Url,
    /// Where its keys are.
    pub keys: Url,
    proof: Proof,
}

/// The secrets of one sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// By which the browser's return is known.
    pub state: String,
    /// By which the token is known to be of this sign-in.
    pub nonce: String,
    /// By which the provider knows that who began this sign-in redeems its code.
    pub verifier: String,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    #[serde(default)]
    authorization_endpoint: String,
    #[serde(default)]
    token_endpoint: String,
    #[serde(default)]
    jwks_uri: String,
    response_types_supported: Option<Vec<String>>,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Where a provider's discovery document is.
pub(crate) fn discovery(issuer: &Url) -> Option<Url> {
    Url::parse(&format!("{}/.well-known/openid-configuration", issuer.as_str().trim_end_matches('/')))
}

impl Provider {
    /// Judges a discovery document.
    pub(crate) fn read(json: &[u8], config: &Config) -> Result<Self, Unusable> {
        let said: Document = serde_json::from_slice(json).map_err(|_| Unusable::Garbled)?;
        if said.issuer != config.issuer.as_str() {
            return Err(Unusable::Issuer(said.issuer.chars().take(200).collect()));
        }
        let lacks = |list: &Option<Vec<String>>, wanted: &[&str]| {
            list.as_ref().is_some_and(|list| !list.iter().any(|one| wanted.contains(&one.as_str())))
        };
        for (list, wanted, what) in [
            (&said.response_types_supported, &["code"][..], "the authorisation code flow"),
            (&said.id_token_signing_alg_values_supported, &["RS256", "ES256"], "RS256 or ES256"),
            (&said.code_challenge_methods_supported, &["S256"], "PKCE with S256"),
        ] {
            if lacks(list, wanted) {
                return Err(Unusable::Lacks(what));
            }
        }
        // What goes over the internet is not sent to a server of this machine because somebody there says so.
        let endpoint = |text: &str, what| {
            let url = Url::parse(text).filter(|url| !url.is_plain() || config.issuer.is_plain());
            url.ok_or(Unusable::Endpoint(what))
        };
        let methods = said.token_endpoint_auth_methods_supported;
        let proof = match &config.secret {
            Some(_) if !lacks(&methods, &["client_secret_basic"]) => Proof::Basic,
            Some(_) if lacks(&methods, &["client_secret_post"]) => {
                return Err(Unusable::Lacks("client_secret_basic or client_secret_post"));
            }
            _ => Proof::Post,
        };
        Ok(Self {
            authorization: endpoint(&said.authorization_endpoint, "authorization_endpoint")?,
            token: endpoint(&said.token_endpoint, "token_endpoint")?,
            keys: endpoint(&said.jwks_uri, "jwks_uri")?,
            proof,
        })
    }

    /// Where a browser is sent to begin a sign-in.
    pub(crate) fn authorize(&self, config: &Config, redirect: &str, secrets: &Secrets) -> String {
        let challenge = base64url(&digest(&secrets.verifier));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &config.client),
            ("redirect_uri", redirect),
            ("scope", &config.scopes),
            ("state", &secrets.state),
            ("nonce", &secrets.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let url = self.authorization.as_str();
        format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
    }

    /// What redeems a code: a form, and the header that says by whom.
    pub(crate) fn redeem(
        &self,
        config: &Config,
        redirect: &str,
        code: &str,
        verifier: &str,
    ) -> (String, Option<HeaderValue>) {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        match (&config.secret, self.proof) {
            (Some(secret), Proof::Basic) => {
                // RFC 6749 (2.3.1) has both escaped before they are joined.
                let pair = format!("{}:{}", percent(&config.client), percent(secret));
                let basic = format!("Basic {}", BASE64.encode(pair.as_bytes()));
                return (form(&fields), HeaderValue::try_from(basic).ok());
            }
            (Some(secret), Proof::Post) => {
                fields.extend([("client_id", &*config.client), ("client_secret", secret)]);
            }
            (None, _) => fields.push(("client_id", &config.client)),
        }
        (form(&fields), None)
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    const BACK: &str = "https://login.x.localhost:8443/public/oidc/return";

    fn config(issuer: &str, secret: Option<&str>) -> Config {
        let find = |name: &str| match name {
            "OIDC_ISSUER" => Some(issuer.to_owned()),
            "OIDC_CLIENT_ID" => Some("hub & co".to_owned()),
            "OIDC_CLIENT_SECRET" => secret.map(str::to_owned),
            _ => None,
        };
        Config::read(find).unwrap().unwrap()
    }

    fn document() -> Value {
        json!({
            "issuer": "https://op.example/a", "authorization_endpoint": "https://op.example/authorize",
            "token_endpoint": "https://op.example/token", "jwks_uri": "https://keys.example/set",
        })
    }

    fn judged(changes: &[(&str, Value)], secret: Option<&str>) -> Result<Provider, Unusable> {
        let mut said = document();
        for (name, value) in changes {
            said[*name] = value.clone();
        }
        Provider::read(said.to_string().as_bytes(), &config("https://op.example/a", secret))
    }

    #[test]
    fn the_document_is_where_the_standard_has_it() {
        for issuer in ["https://op.example/a", "https://op.example/a/"] {
            let url = discovery(&Url::parse(issuer).unwrap()).unwrap();
            assert_eq!(url.as_str(), "https://op.example/a/.well-known/openid-configuration");
        }
    }

    #[test]
    fn a_document_of_another_issuer_or_without_what_is_needed_is_refused() {
        let endpoint = Unusable::Endpoint;
        for (name, value, why) in [
            ("issuer", json!("https://evil.example"), Unusable::Issuer("https://evil.example".into())),
            ("issuer", json!("https://op.example/a/"), Unusable::Issuer("https://op.example/a/".into())),
            ("issuer", Value::Null, Unusable::Garbled),
            ("authorization_endpoint", json!("http://op.example/"), endpoint("authorization_endpoint")),
            ("authorization_endpoint", json!("javascript:alert(1)"), endpoint("authorization_endpoint")),
            ("authorization_endpoint", json!(""), endpoint("authorization_endpoint")),
            ("token_endpoint", json!("http://127.0.0.1:631/"), endpoint("token_endpoint")),
            ("token_endpoint", json!("https://op.example/\r\nx"), endpoint("token_endpoint")),
            ("jwks_uri", json!("file:///etc/passwd"), endpoint("jwks_uri")),
            ("response_types_supported", json!(["id_token"]), Unusable::Lacks("the authorisation code flow")),
            (
                "id_token_signing_alg_values_supported",
                json!(["HS256", "none"]),
                Unusable::Lacks("RS256 or ES256"),
            ),
            ("code_challenge_methods_supported", json!(["plain"]), Unusable::Lacks("PKCE with S256")),
        ] {
            assert_eq!(judged(&[(name, value)], None), Err(why), "{name}");
        }
        for garbled in ["", "[]", "<html>", "{\"issuer\":7}"] {
            let config = config("https://op.example/a", None);
            assert_eq!(Provider::read(garbled.as_bytes(), &config), Err(Unusable::Garbled), "{garbled}");
        }
    }

    #[test]
    fn a_provider_of_this_machine_may_be_asked_without_tls_and_nobody_else() {
        let mut said = document();
        let plain = config("http://127.0.0.1:9/a", None);
        for name in ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"] {
            said[name] = json!("http://127.0.0.1:9/a");
        }
        assert!(Provider::read(said.to_string().as_bytes(), &plain).is_ok());
        said["token_endpoint"] = json!("http://op.example/");
        assert_eq!(
            Provider::read(said.to_string().as_bytes(), &plain),
            Err(Unusable::Endpoint("token_endpoint"))
        );
    }

    #[test]
    fn a_browser_is_sent_with_all_that_binds_the_sign_in_and_not_its_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"; // RFC 7636, appendix B
        let secrets = Secrets { state: "s".into(), nonce: "n".into(), verifier: verifier.into() };
        let config = config("https://op.example/a", Some("hush"));
        let url = judged(&[], None).unwrap().authorize(&config, BACK, &secrets);
        let wanted = "https://op.example/authorize?response_type=code&client_id=hub%20%26%20co\
                      &redirect_uri=https%3A%2F%2Flogin.x.localhost%3A8443%2Fpublic%2Foidc%2Freturn\
                      &scope=openid%20email%20profile&state=s&nonce=n\
                      &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
        assert_eq!(url, wanted);
        let more = [("authorization_endpoint", json!("https://op.example/authorize?tenant=1"))];
        let url = judged(&more, None).unwrap().authorize(&config, BACK, &secrets);
        assert!(url.starts_with("https://op.example/authorize?tenant=1&response_type=code&"), "{url}");
    }

    #[test]
    fn a_code_is_redeemed_with_the_proof_that_the_provider_takes() {
        let plain = "grant_type=authorization_code&code=c%2F1&redirect_uri=\
                     https%3A%2F%2Flogin.x.localhost%3A8443%2Fpublic%2Foidc%2Freturn&code_verifier=v";
        let basic = "Basic aHViJTIwJTI2JTIwY286aHVzaCUyRg=="; // hub%20%26%20co:hush%2F
        let post = format!("{plain}&client_id=hub%20%26%20co");
        let offered = |methods: Value| [("token_endpoint_auth_methods_supported", methods)];
        for (methods, secret, form, header) in [
            (Value::Null, Some("hush/"), plain.to_owned(), Some(basic)),
            (
                json!(["client_secret_post", "client_secret_basic"]),
                Some("hush/"),
                plain.to_owned(),
                Some(basic),
            ),
            (json!(["client_secret_post"]), Some("hush/"), format!("{post}&client_secret=hush%2F"), None),
            (Value::Null, None, post.clone(), None),
            (json!(["none"]), None, post.clone(), None),
        ] {
            let provider = judged(&offered(methods.clone()), secret).unwrap();
            let (sent, by) = provider.redeem(&config("https://op.example/a", secret), BACK, "c/1", "v");
            assert_eq!((sent, by), (form, header.map(HeaderValue::from_static)), "{methods}");
        }
        let lacks = Unusable::Lacks("client_secret_basic or client_secret_post");
        assert_eq!(judged(&offered(json!(["private_key_jwt"])), Some("x")), Err(lacks));
    }
}
