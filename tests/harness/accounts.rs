//! A platform with its own login and admin apps, as `nexushub bootstrap` sets them up, and people who sign in there.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use http::{Request, header::AUTHORIZATION};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{Answer, Options, Platform, Protocol, soon, workshop};

/// An app whose API needs a token, beside the two.
const HELLO: &str = r#"
[[provider.instance]]
id = "hello"
host_name = "hello"
release = "releases/hello"
driver = "process"
"#;

/// The platform, and the password that was said once.
pub struct Accounts {
    /// With login, admin and hello up.
    pub platform: Platform,
    /// Of the user `admin`.
    pub password: String,
}

impl Accounts {
    /// With this configuration of the proxy.
    ///
    /// # Panics
    /// When it can't be had.
    pub async fn start(proxy: &str) -> Self {
        Self::within("process", &format!("[proxy]\n{proxy}\n")).await
    }

    /// With login and admin in boxes of this kind, and this configuration.
    ///
    /// # Panics
    /// When it can't be had.
    pub async fn within(driver: &str, config: &str) -> Self {
        let mut platform = Platform::prepare(&Options::with(&format!("{config}{HELLO}")));
        let bin = platform.home.path().join("releases/hello/bin");
        std::fs::create_dir_all(&bin).unwrap();
        workshop::install(&workshop::program("nexushub-hello"), &bin.join("app"));
        let made = workshop::nexushub(platform.home.path(), &["bootstrap", "--driver", driver]);
        let said = String::from_utf8(made.stdout).unwrap();
        let password = said.split("the password ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let password = password.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&made.stderr)));
        platform.hand_over();
        platform.start_supervisor();
        for (host, path) in [("login", "/signin"), ("admin", "/public/style.css"), ("hello", "/")] {
            soon(host, async { while platform.https().get(host, path).await.status != 200 {} }).await;
        }
        let password = password.to_owned();
        Self { platform, password }
    }

    /// A program's attempt to log in at the admin app, from this address (as a trusted proxy says it).
    pub async fn log_in(&self, name: &str, password: &str, from: &str) -> Answer {
        let body = json!({ "username": name, "password": password }).to_string();
        let request = Request::post("/public/login").header("x-forwarded-for", from);
        self.send(request.body(Full::from(body)).unwrap()).await
    }

    /// An access token of the administrator's for the admin app, as a bearer.
    ///
    /// # Panics
    /// When it is not given.
    pub async fn bearer(&self) -> String {
        let refresh = cookie(&self.log_in("admin", &self.password, "127.0.0.1").await, "YRT");
        let request = Request::post("/public/access_token").header("cookie", refresh);
        let given = self.send(request.body(Full::default()).unwrap()).await.json();
        format!("Bearer {}", given["access_token"].as_str().unwrap())
    }

    /// Has the admin app carry out a change.
    ///
    /// # Panics
    /// When it does not.
    pub async fn publish(&self, bearer: &str, id: &str, event: &Value) {
        let request = Request::post(format!("/api/publish?cid={id}"));
        let request = request.header(AUTHORIZATION, bearer).header("content-type", "application/json");
        let answer = self.send(request.body(Full::from(event.to_string())).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    async fn send(&self, request: Request<Full<bytes::Bytes>>) -> Answer {
        self.platform.https().send(Protocol::Http1, "admin", request).await.unwrap()
    }
}

/// The hash of an administrator's password, as the admin app takes it.
///
/// # Panics
/// When it is not given.
#[must_use]
pub fn hash(password: &str) -> String {
    let mut admin = Command::new(workshop::program("nexushub-admin"));
    let admin = admin.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut admin = admin.spawn().unwrap();
    writeln!(admin.stdin.take().unwrap(), "{password}").unwrap();
    let said = admin.wait_with_output().unwrap();
    assert!(said.status.success(), "nexushub-admin hash-password");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// The name and value of a cookie that an answer sets, as it is sent back.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn cookie(answer: &Answer, name: &str) -> String {
    let mut all = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let set = all.rfind(|set| set.starts_with(&format!("{name}=")));
    let set = set.unwrap_or_else(|| panic!("no {name}: {} {:?}", answer.status, answer.headers));
    set.split(';').next().unwrap().to_owned()
}
