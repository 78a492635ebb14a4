//! Signing in by an OpenID Connect provider: from an app to the provider and back into the app, and everybody who is not let in on
//! that way. Login, admin and the platform are whole; the provider (`oidc.py`) is somebody else's, and strict.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, header::LOCATION};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use nexushub_e2e::{
    Answer, Options, Platform, Protocol, accounts,
    lines::Lines,
    soon, workshop,
    world::{self, INTERNET},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const LOGIN: &str = "3bf3e3c0-6e51-482a-b180-00f6aa568ee9";
const ADMIN: &str = "18736e4f-93f9-4606-a7be-863c7986ea5b";
/// The administrator's.
const PASSWORD: &str = "a long enough password";

/// In which box the login app is, and whose word on the provider it takes, as its entry says it.
struct Entry {
    boxed: &'static str,
    authorities: String,
}

impl Entry {
    /// One without a box, that reads a file of the machine's.
    fn with_file(authorities: &str) -> Self {
        Self { boxed: "driver = \"process\"", authorities: format!("OIDC_CA_FILE = \"{authorities}\"") }
    }
}

/// The platform's own two, as they ship, and an app for who may open it.
fn instances(issuer: &str, Entry { boxed, authorities }: &Entry) -> String {
    let hash = accounts::hash(PASSWORD);
    format!(
        r#"
[[provider.instance]]
id = "{LOGIN}"
host_name = "login"
release = "releases/login"
{boxed}
[provider.instance.env]
OIDC_ISSUER = "{issuer}"
{authorities}
OIDC_CLIENT_ID = "nexushub"
OIDC_CLIENT_SECRET = "a secret: with signs/"
OIDC_NAME = "Example"
[provider.instance.route]
internal_callers = ["{ADMIN}"]
[[provider.instance]]
id = "{ADMIN}"
host_name = "admin"
release = "releases/admin"
driver = "process"
[provider.instance.env]
ADMIN_PASSWORD_HASH = "{hash}"
[provider.instance.route]
sign_in = true
internal_callers = ["{LOGIN}"]
[[provider.instance]]
id = "notes"
host_name = "notes"
release = "releases/notes"
driver = "process"
[provider.instance.route]
sign_in = true
"#
    )
}

/// The provider's process.
struct Provider {
    child: Child,
    /// What it is called, the address that this means, and its port.
    name: &'static str,
    address: IpAddr,
    port: u16,
    /// Where its authority's certificate is.
    folder: TempDir,
}

/// Puts a certificate for this name, its key and the certificate of its authority into a folder.
fn certify(folder: &TempDir, name: &str) {
    let (key, own) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let chain = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap().pem();
    for (file, text) in [("ca.pem", authority), ("chain.pem", chain), ("key.pem", own.serialize_pem())] {
        fs::write(folder.path().join(file), text).unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Provider {
    /// On this machine.
    fn start() -> Self {
        Self::start_at("localhost", "127.0.0.1", Command::new("/usr/bin/python3"))
    }

    /// By this command, at an address that is called so.
    fn start_at(name: &'static str, address: &str, mut python: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certify(&folder, name);
        python.arg("-c").arg(include_str!("oidc.py")).args([name, address]);
        python.args(["chain.pem", "key.pem"].map(|file| folder.path().join(file)));
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = Lines::of(child.stdout.take().unwrap());
        let port = said.until("the provider's port", |line| line.trim().parse().ok());
        Self { child, name, address: address.parse().unwrap(), port, folder }
    }

    fn issuer(&self) -> String {
        format!("https://{}:{}", self.name, self.port)
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What trusts it alone.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into()
    }

    /// Asks it: where it sends a browser to.
    async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let stream = TcpStream::connect((self.address, self.port)).await.unwrap();
        let stream =
            self.connector().connect(ServerName::try_from(self.name).unwrap(), stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", self.name);
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (head, body) = soon("the provider", sender.send_request(request)).await.unwrap().into_parts();
        let said = body.collect().await.unwrap().to_bytes();
        assert!(head.status.as_u16() < 400, "{}: {said:?}", head.status);
        head.headers.get(LOCATION).map(|to| to.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// What is to be different about the next sign-in.
    async fn next(&self, different: &Value) {
        self.ask("POST", "/next", &different.to_string()).await;
    }
}

/// The platform with its apps up, a provider, and Zoe, who may open the notes.
async fn start() -> (Platform, Provider) {
    let provider = Provider::start();
    let platform = start_by(&provider, &Entry::with_file(provider.authority().to_str().unwrap())).await;
    (platform, provider)
}

/// The platform by this provider.
async fn start_by(provider: &Provider, entry: &Entry) -> Platform {
    let mut platform = Platform::prepare(&Options::with(&instances(&provider.issuer(), entry)));
    let notes = format!("#!/usr/bin/python3 -u\n{}", include_str!("access.py"));
    for (name, program) in [
        ("login", fs::read(workshop::program("nexushub-login")).unwrap()),
        ("admin", fs::read(workshop::program("nexushub-admin")).unwrap()),
        ("notes", notes.into_bytes()),
    ] {
        let bin = platform.home.path().join("releases").join(name).join("bin");
        fs::create_dir_all(&bin).unwrap();
        workshop::put_program(&bin.join("app"), &program);
    }
    platform.hand_over();
    platform.start_supervisor();
    for id in [LOGIN, ADMIN, "notes"] {
        platform.running(id).await;
    }
    soon("the table knows the apps", async {
        for host in ["login", "admin", "notes"] {
            while platform.https().get(host, "/public/style.css").await.status != 200 {}
        }
    })
    .await;
    people(&platform).await;
    platform
}

/// Adds Zoe and lets her in, by a program that signs in with a password as ever.
async fn people(platform: &Platform) {
    let mut program = Browser::new(platform);
    let password = json!({ "username": "admin", "password": PASSWORD }).to_string();
    assert_eq!(program.send("POST", "admin", "/public/login", &[], &password).await.status, 200);
    let token = program.send("POST", "admin", "/public/access_token", &[], "").await;
    let bearer = format!("Bearer {}", token.json()["access_token"].as_str().unwrap());
    for (cid, event) in [
        (
            "1",
            json!({ "type": "AddUser", "username": "zoe@example.org", "password": "nobody keeps this one" }),
        ),
        (
            "2",
            json!({ "type": "CreateUserAccessRule", "applicationId": "notes", "ruleType": "ACCEPT", "subjectType": "USER", "subjectId": 2 }),
        ),
    ] {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let path = format!("/api/publish?cid={cid}");
        let answer = program.send("POST", "admin", &path, &headers, &event.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Somebody's browser, as far as cookies go: each for its host.
struct Browser<'a> {
    platform: &'a Platform,
    cookies: BTreeMap<(String, String), String>,
}

impl<'a> Browser<'a> {
    fn new(platform: &'a Platform) -> Self {
        Self { platform, cookies: BTreeMap::new() }
    }

    async fn go(&mut self, host: &str, path: &str) -> Answer {
        self.send("GET", host, path, &[("accept", "text/html,*/*;q=0.8")], "").await
    }

    async fn send(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let held = self.cookies.iter().filter(|((of, _), _)| of == host);
        let held: Vec<String> = held.map(|((_, name), value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header("cookie", held.join("; "));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = self.platform.https().send(Protocol::Http1, host, request).await.unwrap();
        for set in answer.headers.get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies.insert((host.to_owned(), name.to_owned()), value.to_owned());
        }
        answer
    }

    fn is_signed_in(&self) -> bool {
        self.cookies.contains_key(&("login".to_owned(), "__Host-YRT".to_owned()))
    }

    /// The path of a URL of this host, of which it has to be.
    fn local(&self, host: &str, url: &str) -> String {
        let own = format!("https://{}", self.platform.https().authority(host));
        url.strip_prefix(&own).unwrap_or_else(|| panic!("{url} is not at {own}")).to_owned()
    }

    /// From the app to the provider and as far as its way back: the path at login that it is sent to.
    async fn as_far_as_the_way_back(&mut self, provider: &Provider) -> String {
        let begun = self.go("notes", "/list?of=mine").await;
        let away = self.go("notes", begun.header("location")).await;
        let path = self.local("login", away.header("location"));
        let page = self.go("login", &path).await.text();
        assert!(page.contains("Sign in with Example") && page.contains("Password"), "{page}");
        let start = linked(&page, "/public/oidc/start");
        let sent = self.go("login", &start).await;
        let to = sent.header("location").strip_prefix(&provider.issuer()).map(str::to_owned);
        let back = provider.ask("GET", &to.unwrap_or_else(|| panic!("{sent:?}")), "").await;
        self.local("login", &back)
    }
}

/// Where a page leads to that begins so.
fn linked(page: &str, begin: &str) -> String {
    let (_, rest) = page.split_once(&format!("\"{begin}")).unwrap_or_else(|| panic!("{begin}: {page}"));
    format!("{begin}{}", rest.split('"').next().unwrap()).replace("&amp;", "&")
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_whom_the_provider_knows_opens_an_app_and_nobody_does_so_by_their_link() {
    let (platform, provider) = start().await;
    let (mut zoe, mut thief) = (Browser::new(&platform), Browser::new(&platform));
    let back = zoe.as_far_as_the_way_back(&provider).await;
    let page = zoe.go("login", &back).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(zoe.is_signed_in());
    let returned = zoe.go("login", &linked(&page.text(), "/signin")).await;
    let session = zoe.go("login", returned.header("location")).await;
    let path = zoe.local("notes", session.header("location"));
    let done = zoe.go("notes", &path).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/list?of=mine"), "{}", done.text());
    let notes = zoe.go("notes", "/list?of=mine").await.json();
    assert_eq!(
        (&notes["who"]["u"], &notes["who"]["n"]),
        (&json!("2"), &json!("zoe%40example.org")),
        "{notes}"
    );
    let account = zoe.go("login", "/").await.text();
    assert!(account.contains("Hello, zoe@example.org") && account.contains("by Example"), "{account}");

    let again = zoe.go("login", &back).await;
    assert_eq!(again.status, 403, "a state is good once");
    thief.as_far_as_the_way_back(&provider).await;
    let stolen = Browser::new(&platform).as_far_as_the_way_back(&provider).await;
    let answer = thief.go("login", &stolen).await;
    assert_eq!(
        (answer.status.as_u16(), thief.is_signed_in()),
        (403, false),
        "it was begun in another browser"
    );
    assert!(answer.text().contains("another browser"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_the_provider_does_not_vouch_for_or_admin_does_not_know_is_not_let_in() {
    let (platform, provider) = start().await;
    for (what, different, said) in [
        ("another nonce", json!({ "claims": { "nonce": "another" } }), "is not enough"),
        ("a bad signature", json!({ "forge": true }), "is not enough"),
        ("another client's token", json!({ "claims": { "aud": "another" } }), "is not enough"),
        ("an old token", json!({ "claims": { "exp": 1 } }), "is not enough"),
        (
            "an address that nobody verified",
            json!({ "claims": { "email_verified": false } }),
            "is not enough",
        ),
        ("nobody of ours", json!({ "claims": { "email": "eve@example.org" } }), "no such user here"),
        ("a refusal", json!({ "error": "access_denied" }), "did not sign you in"),
    ] {
        let mut browser = Browser::new(&platform);
        provider.next(&different).await;
        let back = browser.as_far_as_the_way_back(&provider).await;
        let answer = browser.go("login", &back).await;
        assert_eq!(
            (answer.status.as_u16(), browser.is_signed_in()),
            (403, false),
            "{what}: {}",
            answer.text()
        );
        assert!(answer.text().contains(said), "{what}: {}", answer.text());
        assert!(answer.text().contains("/signin?app=notes"), "there is a way on: {}", answer.text());
    }
    let mut zoe = Browser::new(&platform);
    let back = zoe.as_far_as_the_way_back(&provider).await;
    assert_eq!(zoe.go("login", &back).await.status, 200, "the same walk without a fault");
    drop(provider);
    let page = Browser::new(&platform).go("login", "/public/oidc/start").await;
    assert_eq!(page.status, 303, "what it published is known for an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_certificate_nobody_vouches_for_is_asked_nothing_and_why_is_in_the_log() {
    let (provider, other) = (Provider::start(), Provider::start());
    let platform = start_by(&provider, &Entry::with_file(other.authority().to_str().unwrap())).await;
    let mut zoe = Browser::new(&platform);
    let refused = zoe.go("login", "/public/oidc/start").await;
    assert_eq!((refused.status.as_u16(), zoe.is_signed_in()), (503, false), "{}", refused.text());
    assert!(refused.text().contains("Example can't be asked just now"), "{}", refused.text());
    let why = "localhost: its certificate is not trusted: invalid peer certificate: ";
    let said = async {
        let logs = || workshop::nexushub(platform.home.path(), &["logs", "login"]).stdout;
        while !String::from_utf8_lossy(&logs()).contains(why) {
            tokio::task::yield_now().await;
        }
    };
    soon("the reason in login's log", said).await;
}

#[test]
fn out_of_its_box_the_login_app_reaches_a_provider_on_the_internet_by_its_name() {
    world::tell(async || {
        let provider = Provider::start_at("id.example", INTERNET, world::there("/usr/bin/python3"));
        let authorities = fs::read_to_string(provider.authority()).unwrap();
        let authorities = format!("OIDC_CA = \"\"\"\n{authorities}\"\"\"");
        let entry = Entry { boxed: "driver = \"sandbox\"\negress = \"internet\"", authorities };
        let platform = start_by(&provider, &entry).await;
        assert_eq!(platform.running(LOGIN).await.driver, "sandbox");
        let mut zoe = Browser::new(&platform);
        let back = zoe.as_far_as_the_way_back(&provider).await;
        let page = zoe.go("login", &back).await;
        assert_eq!((page.status.as_u16(), zoe.is_signed_in()), (200, true), "{}", page.text());
    });
}
