//! An ID token, judged: who wrote it, for whom, when, for which sign-in, and whom it names. Pure: keys and time are the caller's.

use data_encoding::BASE64URL_NOPAD;
use nexushub_applib::{text::same, time::Unix};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::oidc::{
    config::EMAIL,
    keys::{Algorithm, Keys, Verdict},
};

/// How far the provider's clock may be off, in seconds.
const LEEWAY: Unix = 60;
/// How old a token may be that answers a sign-in of now, in seconds: no older than the sign-in.
const AGE: Unix = 600;
/// Bytes of a token.
const TOKEN_MAX: usize = 32 * 1024;
/// Characters of a user's name.
const NAME_MAX: usize = 128;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it is no signed token")]
    Malformed,
    #[error("it is signed neither by RS256 nor by ES256")]
    Algorithm,
    #[error("it is signed by a key that the provider does not publish")]
    Key,
    #[error("its signature is not good")]
    Signature,
    #[error("it was issued by somebody else")]
    Issuer,
    #[error("it is for another client")]
    Audience,
    #[error("it has expired, or is not good yet")]
    Expired,
    #[error("it was issued at another time than this sign-in")]
    Time,
    #[error("it answers another sign-in")]
    Nonce,
    #[error("it names nobody: the claim that is a user's name here is missing, or is no name")]
    Nameless,
    #[error("its e-mail address is not verified")]
    Unverified,
}

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub issuer: &'a str,
    pub client: &'a str,
    pub nonce: &'a str,
    /// The claim that is a user's name.
    pub claim: &'a str,
    pub now: Unix,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    nbf: Option<f64>,
    iat: f64,
    nonce: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The name of the user whom a token names, if all of it is as it should be.
pub(crate) fn judge(token: &str, keys: &Keys, expected: &Expected<'_>) -> Result<String, Unfit> {
    let (said, signature) =
        token.rsplit_once('.').filter(|_| token.len() <= TOKEN_MAX).ok_or(Unfit::Malformed)?;
    let (header, claims) = said.split_once('.').ok_or(Unfit::Malformed)?;
    let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| Unfit::Malformed)?;
    if header.crit.is_some() {
        return Err(Unfit::Malformed); // asks for something that is not known here
    }
    let by = Algorithm::named(&header.alg).ok_or(Unfit::Algorithm)?;
    // Nothing that a token says is looked at before it is known whose word it is.
    match keys.judge(by, header.kid.as_deref(), said.as_bytes(), &part(signature)?) {
        Verdict::Good => {}
        Verdict::Bad => return Err(Unfit::Signature),
        Verdict::Unknown => return Err(Unfit::Key),
    }
    let claims: Claims = serde_json::from_slice(&part(claims)?).map_err(|_| Unfit::Malformed)?;
    claims.fit(expected)?;
    claims.name(expected.claim)
}

fn part(text: &str) -> Result<Vec<u8>, Unfit> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Unfit::Malformed)
}

impl Claims {
    fn fit(&self, expected: &Expected<'_>) -> Result<(), Unfit> {
        let at = |offset: Unix| (expected.now + offset) as f64;
        let nonce = self.nonce.as_deref().unwrap_or_default();
        for (fits, otherwise) in [
            (self.iss == expected.issuer, Unfit::Issuer),
            (self.is_for(expected.client), Unfit::Audience),
            (self.exp > at(-LEEWAY) && self.nbf.is_none_or(|from| from <= at(LEEWAY)), Unfit::Expired),
            ((at(-AGE - LEEWAY)..=at(LEEWAY)).contains(&self.iat), Unfit::Time),
            (same(nonce.as_bytes(), expected.nonce.as_bytes()), Unfit::Nonce),
        ] {
            fits.then_some(()).ok_or(otherwise)?;
        }
        Ok(())
    }

    /// Of several that it is for, the one it was issued to has to be this one (OpenID Connect Core, 3.1.3.7).
    fn is_for(&self, client: &str) -> bool {
        let (named, alone) = match &self.aud {
            Audience::One(one) => (one == client, true),
            Audience::Many(many) => (many.iter().any(|one| one == client), many.len() == 1),
        };
        named && self.azp.as_deref().map_or(alone, |party| party == client)
    }

    fn name(&self, claim: &str) -> Result<String, Unfit> {
        let name = match claim {
            // These are read above, and the issuer's name is nobody's.
            "iss" | "aud" | "azp" | "nonce" => None,
            _ => self.others.get(claim).and_then(Value::as_str),
        };
        let whole = |name: &&str| {
            (1..=NAME_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
        };
        let name = name.filter(whole).ok_or(Unfit::Nameless)?;
        if claim == EMAIL && self.others.get("email_verified") != Some(&Value::Bool(true)) {
            return Err(Unfit::Unverified);
        }
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests;
