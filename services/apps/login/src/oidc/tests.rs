//! The whole walk with a provider that is played: out, back, and into an app; and everything that ends it on the way.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State as Held, http::Uri, routing::any};
use nexushub_applib::text::{base64url, digest, percent, unpercent};
use serde_json::{Value, json};

use super::*;
use crate::{
    oidc::{
        issuer::{AT_ONCE, KEPT, REST},
        signer::Signer,
    },
    tests::{APP, Answer, STATE, World, world_by},
};

/// What a provider does just now.
struct Provider {
    signer: Signer,
    published: Vec<Value>,
    /// What its discovery document says otherwise.
    document: Value,
    /// What its tokens say otherwise.
    claims: Value,
    /// What its token endpoint says instead of a token.
    instead: Option<(StatusCode, Value)>,
    away: bool,
    asked: Vec<String>,
    form: HashMap<String, String>,
}

type Shared = Arc<Mutex<Provider>>;

fn over(mut value: Value, changes: &Value) -> Value {
    for (name, change) in changes.as_object().unwrap() {
        value[name] = change.clone();
    }
    value
}

async fn answer(Held((it, at)): Held<(Shared, String)>, uri: Uri, form: String) -> (StatusCode, Json<Value>) {
    let mut it = it.lock().unwrap();
    it.asked.push(uri.path().to_owned());
    if it.away {
        return (StatusCode::BAD_GATEWAY, Json(Value::Null));
    }
    let now = 1_700_000_000;
    let said = match uri.path() {
        "/.well-known/openid-configuration" => {
            let (to, token, keys) = (format!("{at}/authorize"), format!("{at}/token"), format!("{at}/keys"));
            let said = json!({ "issuer": at, "authorization_endpoint": to, "token_endpoint": token, "jwks_uri": keys });
            over(said, &it.document)
        }
        "/keys" => json!({ "keys": it.published }),
        _ => {
            it.form = pairs(&form);
            let claims = json!({
                "iss": at, "aud": "hub", "iat": now, "exp": now + 300, "email": "Kim@example.org", "email_verified": true,
            });
            let token = it.signer.token(&over(claims, &it.claims));
            return it
                .instead
                .clone()
                .map_or((StatusCode::OK, Json(json!({ "id_token": token }))), |(status, said)| {
                    (status, Json(said))
                });
        }
    };
    (StatusCode::OK, Json(said))
}

/// The pairs of a query or a form.
fn pairs(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), unpercent(value).unwrap())).collect()
}

/// A provider and a login app that knows it.
struct Story {
    world: World,
    provider: Shared,
    at: String,
}

async fn story() -> Story {
    story_with(&[]).await
}

async fn story_with(variables: &[(&str, &str)]) -> Story {
    let signer = Signer::p256("k1");
    let provider = Arc::new(Mutex::new(Provider {
        published: vec![signer.jwk()],
        signer,
        document: json!({}),
        claims: json!({}),
        instead: None,
        away: false,
        asked: Vec::new(),
        form: HashMap::new(),
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(any(answer)).with_state((Arc::clone(&provider), at.clone()));
    tokio::spawn(async { axum::serve(listener, routes).await });
    let own = [("OIDC_ISSUER", at.as_str()), ("OIDC_CLIENT_ID", "hub"), ("OIDC_NAME", "Example")];
    let all = [variables, &own].concat();
    let find = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned());
    let config = Config::read(find).unwrap().unwrap();
    let issuer = Issuer::new(config, "login.x.localhost:8443").unwrap();
    Story { world: world_by(Some(issuer)).await, provider, at }
}

/// A sign-in that has left: what the provider was asked, and the browser's cookie.
struct Left {
    asked: HashMap<String, String>,
    cookie: String,
}

impl Story {
    fn set(&self, change: impl FnOnce(&mut Provider)) {
        change(&mut self.provider.lock().unwrap());
    }

    fn asked(&self, path: &str) -> usize {
        self.provider.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }

    async fn leave(&self, errand: &str) -> Left {
        let answer = self.world.get(&format!("/public/oidc/start{errand}"), "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        let (to, query) = answer.location().split_once('?').unwrap();
        assert_eq!(to, format!("{}/authorize", self.at));
        let asked = pairs(query);
        self.set(|it| it.claims["nonce"] = json!(asked["nonce"]));
        Left { asked, cookie: format!("{BROWSER}={}", answer.cookie(BROWSER).unwrap()) }
    }

    async fn come_back(&self, left: &Left) -> Answer {
        self.come_back_with(left, "&code=c0de").await
    }

    async fn come_back_with(&self, left: &Left, with: &str) -> Answer {
        let path = format!("/public/oidc/return?state={}{with}", left.asked["state"]);
        self.world.get(&path, &left.cookie).await
    }

    /// The last line of the audit trail: what, whose, and why.
    async fn noted(&self) -> (String, String, String) {
        let query = "SELECT what, user_name, detail FROM audit ORDER BY id DESC LIMIT 1";
        let read = |tx: &rusqlite::Transaction<'_>| {
            let row = tx.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            Ok::<_, Refusal>(row.unwrap_or_default())
        };
        self.world.login.db.run(read).await.unwrap()
    }

    /// Nobody is signed in, the page says so and nothing of why, and the trail says why.
    async fn refused(&self, answer: &Answer, status: StatusCode, why: &str) {
        assert_eq!((answer.status, answer.cookie("__Host-YRT")), (status, None), "{why}: {}", answer.text);
        assert!(answer.text.contains("Not signed in") && answer.text.contains("/signin"), "{}", answer.text);
        let (what, _, detail) = self.noted().await;
        assert!(what == "refusal" && detail.contains(why), "{what} {detail}");
    }
}

#[tokio::test]
async fn whom_the_provider_knows_is_signed_in_as_with_a_password_and_goes_on_to_the_app() {
    let story = story().await;
    let errand = format!("?app={APP}&state={STATE}&name=Shop");
    let page = story.world.get(&format!("/signin{errand}"), "").await;
    let link = format!("/public/oidc/start{errand}");
    assert!(page.text.contains(&link.replace('&', "&amp;")) && page.text.contains("Sign in with Example"));
    let left = story.leave(&errand).await;
    let back = story.come_back(&left).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    let on = format!("/signin{errand}");
    assert!(back.text.contains(&on.replace('&', "&amp;")), "{}", back.text);
    let cookie = format!("__Host-YRT={}", back.cookie("__Host-YRT").unwrap());
    let app = story.world.get(&on, &cookie).await;
    assert!(app.location().starts_with(&format!("/public/return?app={APP}&code=")), "{}", app.location());
    let token = app.cookie("__Host-YRT").unwrap();
    assert_eq!(story.world.refresh(&token, APP).await.json()["UserName"], "kim@example.org");
}

#[tokio::test]
async fn what_leaves_is_bound_to_what_comes_back() {
    let story = story_with(&[("OIDC_CLIENT_SECRET", "hush")]).await;
    let start = story.world.get("/public/oidc/start", "").await;
    let cookie = start.headers["set-cookie"].to_str().unwrap();
    for part in ["__Host-YOS=", "; Path=/;", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=600"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let left = story.leave("").await;
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
    let form = story.provider.lock().unwrap().form.clone();
    assert_eq!(left.asked["code_challenge"], base64url(&digest(&form["code_verifier"])));
    assert_eq!((form["code"].as_str(), &form["redirect_uri"]), ("c0de", &left.asked["redirect_uri"]));
    assert_eq!(left.asked["redirect_uri"], "https://login.x.localhost:8443/public/oidc/return");
    assert!(!form.contains_key("client_secret"), "it goes in the header");
    let lengths = ["state", "nonce"].map(|name| left.asked[name].len());
    assert_eq!((lengths, form["code_verifier"].len()), ([43, 43], 43), "256 bits each");
    let (what, name, detail) = story.noted().await;
    assert_eq!((what.as_str(), name.as_str(), detail.as_str()), ("login", "kim@example.org", "by Example"));
}

#[tokio::test]
async fn who_comes_back_twice_or_in_another_browser_or_out_of_nowhere_is_not_signed_in() {
    let story = story().await;
    let left = story.leave("").await;
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
    let stolen = story.leave("").await;
    let thief = Left { cookie: format!("{BROWSER}={}", random()), asked: stolen.asked.clone() };
    let naked = Left { cookie: String::new(), asked: story.leave("").await.asked };
    let guess = Left { cookie: left.cookie.clone(), asked: HashMap::from([("state".into(), random())]) };
    for late in [&left, &thief, &stolen, &naked, &guess] {
        let answer = story.come_back(late).await;
        assert_eq!((answer.status, answer.cookie("__Host-YRT")), (StatusCode::FORBIDDEN, None));
        assert!(answer.text.contains("another browser"), "{}", answer.text);
    }
    assert_eq!(story.asked("/token"), 1, "no code of theirs was redeemed");
    let slow = story.leave("").await;
    story.world.pass(LIFE);
    assert_eq!(story.come_back(&slow).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn two_tabs_of_one_browser_are_no_mistake() {
    let story = story().await;
    let first = story.leave("").await;
    let nonce = story.provider.lock().unwrap().claims["nonce"].clone();
    let second = story.world.get("/public/oidc/start", &first.cookie).await;
    assert_eq!(format!("{BROWSER}={}", second.cookie(BROWSER).unwrap()), first.cookie);
    story.set(|it| it.claims["nonce"] = nonce);
    assert_eq!(story.come_back(&first).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_that_does_not_fit_signs_nobody_in_and_says_why_to_the_administrator_alone() {
    for (claims, why) in [
        (json!({ "nonce": "another" }), "another sign-in"),
        (json!({ "aud": "another" }), "another client"),
        (json!({ "iss": "https://evil.example" }), "somebody else"),
        (json!({ "exp": 1_600_000_000 }), "expired"),
        (json!({ "email_verified": false }), "not verified"),
    ] {
        let story = story().await;
        let left = story.leave("").await;
        story.set(|it| it.claims = over(it.claims.clone(), &claims));
        let answer = story.come_back(&left).await;
        story.refused(&answer, StatusCode::FORBIDDEN, why).await;
        assert!(!answer.text.contains(why), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_name_that_is_nobodys_or_only_looks_like_somebodys_opens_nothing() {
    for (claim, name) in
        [("email", "eve@example.org"), ("email", "\u{212a}im@example.org"), ("sub", "ZOE"), ("sub", "zoe ")]
    {
        let story = story_with(&[("OIDC_CLAIM", claim)]).await;
        let left = story.leave("").await;
        story.set(|it| it.claims[claim] = json!(name));
        let answer = story.come_back(&left).await;
        story.refused(&answer, StatusCode::FORBIDDEN, "no user of this name").await;
        assert!(answer.text.contains(name) && story.noted().await.1 == name, "{}", answer.text);
    }
    let story = story_with(&[("OIDC_CLAIM", "sub")]).await;
    let left = story.leave("").await;
    story.set(|it| it.claims["sub"] = json!("zoe"));
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_the_provider_says_instead_of_a_code_is_told_and_written_down() {
    let story = story().await;
    let long = format!("&code={}", "c".repeat(CODE_MAX + 1));
    let wrong = format!("&code=c&iss={}", percent("https://evil.example"));
    for (with, why) in [
        ("&error=access_denied&error_description=%3Cb%3E", "it declined: access_denied"),
        ("&error=server_error&code=c", "it declined: server_error"),
        ("&error=a%0d%0ab%20%3Cscript%3E", "it declined: abscript"),
        ("", "neither an error nor a code that can be used"),
        (&long, "neither an error nor a code that can be used"),
        (&wrong, "neither an error nor a code that can be used"),
    ] {
        let left = story.leave("").await;
        let answer = story.come_back_with(&left, with).await;
        story.refused(&answer, StatusCode::FORBIDDEN, why).await;
        assert!(answer.text.contains("Example did not sign you in"), "{}", answer.text);
        assert_eq!(story.come_back(&left).await.status, StatusCode::FORBIDDEN, "its state is gone");
    }
    assert_eq!(story.asked("/token"), 0);
    let left = story.leave("").await;
    let own = format!("&code=c&iss={}", percent(&story.at));
    assert_eq!(story.come_back_with(&left, &own).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_endpoint_that_says_no_or_nonsense_signs_nobody_in() {
    for (status, said, why) in [
        (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }), "answered with 400: invalid_grant"),
        (StatusCode::FOUND, json!({}), "answered with 302"),
        (StatusCode::OK, json!({ "access_token": "x" }), "answered something else"),
    ] {
        let story = story().await;
        let left = story.leave("").await;
        story.set(|it| it.instead = Some((status, said)));
        let answer = story.come_back(&left).await;
        story.refused(&answer, StatusCode::SERVICE_UNAVAILABLE, why).await;
    }
}

#[tokio::test]
async fn a_new_key_of_the_provider_is_found_and_a_key_of_nobodys_is_looked_for_once() {
    let story = story().await;
    let left = story.leave("").await;
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
    let left = story.leave("").await;
    story.set(|it| {
        it.signer = Signer::rsa("k2");
        it.published.push(it.signer.jwk());
    });
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
    assert_eq!(story.asked("/keys"), 2);
    let left = story.leave("").await;
    story.set(|it| it.signer = Signer::p256("k3"));
    let answer = story.come_back(&left).await;
    story.refused(&answer, StatusCode::FORBIDDEN, "a key that the provider does not publish").await;
    assert_eq!(story.asked("/keys"), 3);
    let left = story.leave("").await;
    story.set(|it| it.signer = Signer::p256("k1"));
    let answer = story.come_back(&left).await;
    story.refused(&answer, StatusCode::FORBIDDEN, "its signature is not good").await;
    assert_eq!(story.asked("/keys"), 3, "a key that is known is not looked for");
}

#[tokio::test]
async fn what_the_provider_published_is_kept_for_an_hour() {
    const DOCUMENT: &str = "/.well-known/openid-configuration";
    let story = story().await;
    story.leave("").await;
    story.world.pass(KEPT - 1);
    story.leave("").await;
    assert_eq!(story.asked(DOCUMENT), 1);
    story.world.pass(1);
    story.set(|it| it.document = json!({ "issuer": "https://evil.example" }));
    let answer = story.world.get("/public/oidc/start", "").await;
    assert_eq!((answer.status, story.asked(DOCUMENT)), (StatusCode::SERVICE_UNAVAILABLE, 2));
}

#[tokio::test]
async fn a_provider_that_is_away_is_said_left_alone_for_a_while_and_found_again() {
    let story = story().await;
    story.set(|it| it.away = true);
    for _ in 0..3 {
        let answer = story.world.get(&format!("/public/oidc/start?app={APP}&state={STATE}"), "").await;
        assert_eq!((answer.status, answer.cookie(BROWSER)), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert!(
            answer.text.contains("Example can&#39;t be asked")
                || answer.text.contains("Example can't be asked")
        );
        assert!(answer.text.contains(&format!("/signin?app={APP}")), "{}", answer.text);
    }
    assert_eq!(story.asked("/.well-known/openid-configuration"), 1);
    assert!(!story.world.token().await.is_empty(), "passwords go on");
    story.set(|it| it.away = false);
    story.world.pass(REST);
    story.leave("").await;
}

#[tokio::test]
async fn only_so_many_wait_for_the_provider_at_once() {
    let story = story().await;
    let left = story.leave("").await;
    let issuer = story.world.login.issuer.as_ref().unwrap();
    let places = issuer.redeeming.try_acquire_many(u32::try_from(AT_ONCE).unwrap()).unwrap();
    let answer = story.come_back(&left).await;
    story.refused(&answer, StatusCode::SERVICE_UNAVAILABLE, "too many sign-ins at once").await;
    drop(places);
    let left = story.leave("").await;
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_comes_back_for_nothing_too_often_waits_and_is_noted_no_more() {
    let story = story().await;
    let mut answer = story.come_back_with(&story.leave("").await, "&error=x").await;
    let mut times = 0;
    while answer.status == StatusCode::FORBIDDEN && times < 100 {
        times += 1;
        answer = story.come_back_with(&story.leave("").await, &format!("&error=x{times}")).await;
    }
    assert_eq!((answer.status, times), (StatusCode::TOO_MANY_REQUESTS, 21), "{}", answer.text);
    assert!(answer.text.contains("Please wait"), "{}", answer.text);
    assert!(story.noted().await.2.ends_with("x20"));
    story.world.pass(2);
    assert_eq!(story.come_back(&story.leave("").await).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_link_leads_to_the_provider_and_back_to_this_app_and_nowhere_else() {
    let story = story().await;
    for errand in [
        "?app=app-1",
        "?app=https://evil.example&state=0123456789012345678",
        "?app=..&state=0123456789012345678",
    ] {
        let answer = story.world.get(&format!("/public/oidc/start{errand}"), "").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{errand}");
    }
    let more = format!(
        "?app={APP}&state={STATE}&name=%22%3E%3Cb%3E&redirect_uri=https://evil.example&continue=//evil.example"
    );
    let left = story.leave(&more).await;
    assert!(left.asked["redirect_uri"].starts_with("https://login.x.localhost:8443/"));
    let back = story.come_back(&left).await;
    assert!(!back.text.contains("evil") && !back.text.contains("<b>"), "{}", back.text);
}

#[tokio::test]
async fn who_was_signed_in_before_is_not_any_more() {
    let story = story().await;
    let before = story.world.token().await;
    let mut left = story.leave("").await;
    left.cookie = format!("{}; __Host-YRT={before}", left.cookie);
    assert_eq!(story.come_back(&left).await.status, StatusCode::OK);
    assert_eq!(story.world.refresh(&before, APP).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_provider_there_is_neither_a_button_nor_a_way() {
    let world = world_by(None).await;
    assert!(!world.get("/signin", "").await.text.contains("oidc"));
    for path in ["/public/oidc/start", "/public/oidc/return?state=s&code=c"] {
        assert_eq!(world.get(path, "").await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn a_provider_elsewhere_needs_authorities_that_can_be_read() {
    let find = |name: &str| match name {
        "OIDC_ISSUER" => Some("https://op.example".to_owned()),
        "OIDC_CLIENT_ID" => Some("hub".to_owned()),
        "OIDC_CA_FILE" => Some("/nowhere/ca.pem".to_owned()),
        _ => None,
    };
    let config = Config::read(find).unwrap().unwrap();
    let why = Issuer::new(config, "login.example:443").err().unwrap();
    assert!(why.starts_with("OIDC_CA_FILE or OIDC_CA: /nowhere/ca.pem"), "{why}");
}
