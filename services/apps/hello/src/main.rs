//! The sample app of NexusHub: what an app is, on two pages.
//!
//! | it shows | where | by |
//! |---|---|---|
//! | data that outlive restarts and releases | the visits and the greeting, in `$NEXUSHUB_DATA` | [`Settings`] |
//! | who asks | `GET /` greets by name who is signed in | [`Identity`] |
//! | a form that no other site can send | `POST /greeting`, for people who are signed in | [`Csrf`], [`page`] |
//! | an API, and how it says no | `GET /api/visits`, for people and for the apps that its entry names as `callers` | [`Refusal`] |
//! | a call to another app | `GET /neighbour` asks the one whose id is in the variable `NEIGHBOUR` for its visits | [`Entrance`] |
//!
//! Who is asked decides: an app's `/api` is for those that its entry, in the configuration or on its page in the admin app, has in
//! `callers`. One that was only pushed has no such entry, and refuses all apps (403); what they may ask of it is below `/public`.
//!
//! The rest (where it listens, the health check, stopping after the requests in flight) is `nexushub-applib`'s. Package it as
//! `bin/app` in a zip: `nexushub push hello.zip --name hello`. Run it alone with `PORT=8080 nexushub-hello`. For more than two small
//! files there is a database ([`nexushub_applib::db`], as in the login app).

use std::{
    env, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Form, State},
    http::Method,
    response::Response,
    routing::{get, post},
};
use maud::html;
use nexushub_applib::{
    Identity, Refusal, Settings, User,
    calls::{Call, Entrance},
    csrf::Csrf,
    page::{self, Page, document, see_other},
    serve,
};
use serde::{Deserialize, Serialize};

/// Characters of a greeting.
const GREETING_MAX: usize = 64;

/// What the pages need to know.
struct Hello {
    host: String,
    csrf: Csrf,
    /// The way to other apps; none where there is no platform around.
    entrance: Option<Entrance>,
    /// The id of the app beside this one.
    neighbour: Option<String>,
    kept: Mutex<Kept>,
}

/// What is kept, and where; without a data folder it lives as long as the process.
struct Kept {
    visits: u64,
    greeting: String,
    folder: Option<PathBuf>,
}

impl Kept {
    fn read(settings: &Settings) -> Self {
        let folder = env::var_os("NEXUSHUB_DATA").map(|_| settings.data.clone());
        let read = |name: &str| {
            folder.as_ref().and_then(|folder| fs::read_to_string(folder.join(name)).ok()).unwrap_or_default()
        };
        let (visits, greeting) = (read("visits").trim().parse().unwrap_or(0), read("greeting"));
        let greeting = Some(greeting.trim().to_owned()).filter(|greeting| !greeting.is_empty());
        Self { visits, greeting: greeting.unwrap_or_else(|| "Hello".to_owned()), folder }
    }

    /// Beside, then over: whoever reads the file sees all of it. Not synced: a visit may be lost with the machine.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let (path, beside) = (folder.join(name), folder.join(format!("{name}.new")));
        fs::write(&beside, format!("{text}\n"))?;
        fs::rename(beside, path)
    }

    fn count(&mut self) -> u64 {
        self.visits += 1;
        self.write("visits", &self.visits.to_string())
            .unwrap_or_else(|error| eprintln!("could not keep the number of visits: {error}"));
        self.visits
    }
}

impl Hello {
    fn new(settings: &Settings) -> Self {
        Self {
            host: settings.host.clone(),
            csrf: Csrf::of(&settings.secret),
            entrance: Entrance::from_env(settings).ok(),
            neighbour: env::var("NEIGHBOUR").ok(),
            kept: Mutex::new(Kept::read(settings)),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a form's token is bound to.
fn visit(user: &User) -> String {
    format!("{} {}", user.id, user.session)
}

/// `GET /`: for everybody, or, with `sign_in = true` in its entry, for who is signed in.
async fn greet(method: Method, State(hello): State<Arc<Hello>>, who: Option<Identity>) -> Page {
    if method == Method::HEAD {
        return Page::new(""); // who asks for the head alone is no visitor
    }
    let user = who.and_then(|who| who.user);
    let (greeting, visits) = hello.with(|kept| (kept.greeting.clone(), kept.count()));
    let body = html! {
        body.lone {
            main.card.narrow {
                h1 { (greeting) " from " (hello.host) }
                @if let Some(user) = &user { p { "You are " strong { (user.name) } "." } }
                p { "process " (std::process::id()) ", visit number " (visits) }
                @if let Some(user) = &user {
                    form method="post" action="/greeting" {
                        input type="hidden" name="csrf" value=(hello.csrf.token(&visit(user)));
                        label for="greeting" { "Greeting" }
                        input #greeting name="greeting" value=(greeting) maxlength=(GREETING_MAX) required;
                        button.primary.wide { "Greet like this" }
                    }
                }
            }
        }
    };
    document(&hello.host, &html! {}, &body)
}

/// What the form sends.
#[derive(Deserialize)]
struct Filled {
    csrf: String,
    greeting: String,
}

/// `POST /greeting`
async fn change(
    State(hello): State<Arc<Hello>>,
    who: Identity,
    Form(filled): Form<Filled>,
) -> Result<Response, Refusal> {
    if !hello.csrf.holds(&visit(who.person()?), &filled.csrf) {
        return Err(Refusal::stale_form());
    }
    let greeting = filled.greeting.trim().to_owned();
    if !(1..=GREETING_MAX).contains(&greeting.chars().count()) || greeting.contains(char::is_control) {
        return Err(Refusal::bad(format!("a greeting is 1 to {GREETING_MAX} characters on one line")));
    }
    let kept = hello.with(|kept| {
        kept.write("greeting", &greeting)?;
        kept.greeting = greeting;
        Ok::<_, io::Error>(())
    });
    kept.map_err(|error| Refusal::broken(&error))?;
    Ok(see_other("/"))
}

/// What the API answers, and what a neighbour's says.
#[derive(Debug, Serialize, Deserialize)]
struct Visits {
    visits: u64,
}

/// `GET /api/visits`: whoever the platform let in.
async fn visits(State(hello): State<Arc<Hello>>, _: Identity) -> Json<Visits> {
    Json(Visits { visits: hello.with(|kept| kept.visits) })
}

/// `GET /neighbour`
async fn neighbour(State(hello): State<Arc<Hello>>) -> Result<String, Refusal> {
    let (entrance, id) = hello
        .entrance
        .as_ref()
        .zip(hello.neighbour.as_ref())
        .ok_or_else(|| Refusal::missing("there is no neighbour: NEIGHBOUR names one by its id"))?;
    let told: Visits = entrance.ask(Call::new(Some(id), Method::GET, "/api/visits")).await?;
    Ok(format!("{id} has had {} visits\n", told.visits))
}

fn routes(hello: Hello) -> Router {
    Router::new()
        .route("/", get(greet))
        .route("/greeting", post(change))
        .route("/api/visits", get(visits))
        .route("/neighbour", get(neighbour))
        .route("/public/style.css", get(async || page::file("text/css; charset=utf-8", page::STYLE)))
        .with_state(Arc::new(hello))
}

fn main() -> io::Result<()> {
    serve(Settings::from_env()?, async |settings| Ok(routes(Hello::new(&settings))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use nexushub_applib::{guard, identity::Key};
    use tower::ServiceExt;

    use super::*;

    const SECRET: &str = "its own";

    struct World {
        app: Router,
        folder: tempfile::TempDir,
    }

    /// The app with its data in a folder, beside a platform whose entrance is at this port.
    fn world(entrance: Option<u16>) -> World {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept { visits: 6, greeting: "Hello".into(), folder: Some(folder.path().into()) };
        let hello = Hello {
            host: "hello.x".into(),
            csrf: Csrf::of(SECRET),
            entrance: entrance.map(|port| Entrance::played_by(port, SECRET)),
            neighbour: Some("other".into()),
            kept: Mutex::new(kept),
        };
        World { app: guard(routes(hello), SECRET, Arc::new(|| 1000)), folder }
    }

    fn zoe() -> Identity {
        Identity { user: Some(User { id: 7, name: "zoe".into(), session: "s".into() }), caller: None }
    }

    impl World {
        async fn ask(
            &self,
            who: Option<&Identity>,
            method: &str,
            path: &str,
            form: String,
        ) -> (StatusCode, String) {
            let request = Request::builder().method(method).uri(path);
            let mut request = request.header("content-type", "application/x-www-form-urlencoded");
            if let Some(who) = who {
                request = request.header("x-nexushub-identity", Key::of(SECRET).prove(who, 1000));
            }
            let answer = self.app.clone().oneshot(request.body(Body::from(form)).unwrap()).await.unwrap();
            let (head, body) = answer.into_parts();
            (head.status, String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap())
        }
    }

    #[tokio::test]
    async fn it_counts_visits_keeps_them_and_greets_by_name_who_is_signed_in() {
        let world = world(None);
        assert!(world.ask(None, "HEAD", "/", String::new()).await.1.is_empty());
        let (_, stranger) = world.ask(None, "GET", "/", String::new()).await;
        assert!(stranger.contains("visit number 7") && !stranger.contains("csrf"), "{stranger}");
        let (_, known) = world.ask(Some(&zoe()), "GET", "/", String::new()).await;
        assert!(known.contains("zoe") && known.contains("visit number 8"), "{known}");
        assert_eq!(fs::read_to_string(world.folder.path().join("visits")).unwrap(), "8\n");
        assert_eq!(world.ask(None, "GET", "/api/visits", String::new()).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(world.ask(Some(&zoe()), "GET", "/api/visits", String::new()).await.1, "{\"visits\":8}");
    }

    #[tokio::test]
    async fn the_greeting_is_changed_by_its_own_form_and_nothing_else() {
        let world = world(None);
        let token = Csrf::of(SECRET).token(&visit(zoe().user.as_ref().unwrap()));
        let filled = |token: &str, greeting: &str| format!("csrf={token}&greeting={greeting}");
        for (who, form, status) in [
            (None, filled(&token, "Ahoy"), StatusCode::UNAUTHORIZED),
            (Some(zoe()), filled("forged", "Ahoy"), StatusCode::FORBIDDEN),
            (Some(zoe()), filled(&token, &"x".repeat(GREETING_MAX + 1)), StatusCode::BAD_REQUEST),
            (Some(zoe()), filled(&token, "%0a"), StatusCode::BAD_REQUEST),
            (Some(zoe()), filled(&token, "Ahoy"), StatusCode::SEE_OTHER),
        ] {
            assert_eq!(world.ask(who.as_ref(), "POST", "/greeting", form).await.0, status);
        }
        assert!(world.ask(None, "GET", "/", String::new()).await.1.contains("Ahoy from hello.x"));
        assert_eq!(fs::read_to_string(world.folder.path().join("greeting")).unwrap(), "Ahoy\n");
    }

    #[tokio::test]
    async fn a_neighbour_is_asked_by_its_id_and_one_that_is_away_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = async |headers: axum::http::HeaderMap| {
            assert_eq!(headers["x-application-id"], "other");
            Json(Visits { visits: 41 })
        };
        let routes = Router::new().route("/api/visits", get(asked));
        tokio::spawn(async { axum::serve(listener, routes).await });
        let told = world(Some(port)).ask(None, "GET", "/neighbour", String::new()).await;
        assert_eq!(told, (StatusCode::OK, "other has had 41 visits\n".into()));
        let away = world(Some(1)).ask(None, "GET", "/neighbour", String::new()).await;
        assert_eq!(away.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(world(None).ask(None, "GET", "/neighbour", String::new()).await.0, StatusCode::NOT_FOUND);
    }
}
