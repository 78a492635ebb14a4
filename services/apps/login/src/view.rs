//! The pages, as HTML: short, without script, good on a phone, by keyboard and in the dark.

use maud::{Markup, html};
use nexushub_applib::{
    page::{Notice, Page, document},
    text::sentence,
    time::{Unix, ago, rfc3339},
    wellknown,
};

use crate::{
    signin::Errand,
    store::{Entry, Session},
};

/// One card in the middle of the page.
fn card(title: &str, head: &Markup, content: &Markup) -> Page {
    let body = html! {
        body.lone {
            main.card.narrow {
                p.brand { span.mark aria-hidden="true" {} "NexusHub" }
                (content)
            }
        }
    };
    document(title, head, &body)
}

/// The form, and the way by an identity provider if there is one.
pub(crate) fn sign_in(
    errand: &Errand,
    name: &str,
    wrong: Option<&str>,
    csrf: &str,
    provider: Option<&str>,
) -> Page {
    let wrong = wrong.map(|text| Notice::Bad(text.to_owned()));
    let content = html! {
        h1 { "Sign in" }
        p.quiet {
            @if errand.app.is_empty() { "to your account" }
            @else if errand.name.is_empty() { "to go on to your app" }
            @else { "to go on to " strong { (errand.name) } }
        }
        @if let Some(notice) = &wrong { (notice) }
        form method="post" action="/signin" {
            input type="hidden" name="csrf" value=(csrf);
            input type="hidden" name="app" value=(errand.app);
            input type="hidden" name="state" value=(errand.state);
            input type="hidden" name="name" value=(errand.name);
            label for="username" { "Name" }
            input #username name="username" type="text" value=(name) autocomplete="username" autocapitalize="none"
                spellcheck="false" required autofocus[name.is_empty()];
            label for="password" { "Password" }
            input #password name="password" type="password" autocomplete="current-password" required
                autofocus[!name.is_empty()];
            button.primary.wide { "Sign in" }
        }
        @if let Some(provider) = provider {
            a.button.wide href=(errand.start()) { "Sign in with " (provider) }
        }
    };
    card("Sign in", &html! {}, &content)
}

/// Leads on by itself.
pub(crate) fn going_on(path: &str) -> Page {
    let head = html! { meta http-equiv="refresh" content={ "0;url=" (path) }; };
    let content = html! {
        h1 { "Welcome" }
        p.quiet { "You are signed in. If nothing happens, " a href=(path) { "go on" } "." }
    };
    card("Signed in", &head, &content)
}

/// Signed in, but not for this app.
pub(crate) fn denied(errand: &Errand, person: &str, csrf: &str) -> Page {
    let app = if errand.name.is_empty() { "this app" } else { &errand.name };
    let content = html! {
        h1 { "No access" }
        p { "You are signed in as " strong { (person) } ", who may not open " strong { (app) } "." }
        p.quiet { "An administrator can change that. Then " a href=(errand.path()) { "try again" } "." }
        form method="post" action="/signout" {
            input type="hidden" name="csrf" value=(csrf);
            button.wide { "Sign out, to come as somebody else" }
        }
    };
    card("No access", &html! {}, &content)
}

/// Not signed in by the identity provider.
pub(crate) fn not_signed_in(errand: &Errand, why: &str) -> Page {
    let content = html! {
        h1 { "Not signed in" }
        p role="alert" { (why) }
        p { a.button.wide href=(errand.path()) { "Back to signing in" } }
    };
    card("Not signed in", &html! {}, &content)
}

/// Something went wrong.
pub(crate) fn trouble(text: &str) -> Page {
    let content = html! {
        h1 { "Sorry" }
        p { (sentence(text)) }
        p.quiet { a href="/" { "My account" } }
    };
    card("Sorry", &html! {}, &content)
}

/// "My account".
pub(crate) fn account(
    here: &Session,
    sessions: &[Session],
    trail: &[Entry],
    note: Option<&Notice>,
    csrf: &str,
    now: Unix,
) -> Page {
    let body = html! {
        body {
            header.top {
                a.brand href="/" { span.mark aria-hidden="true" {} "NexusHub" }
                span.grow {}
                form method="post" action="/signout" {
                    input type="hidden" name="csrf" value=(csrf);
                    button.small { "Sign out" }
                }
            }
            main.column {
                h1 { "Hello, " (here.person.name) }
                @if let Some(notice) = note { (notice) }
                (sessions_card(here, sessions, csrf, now))
                (password_card(here, csrf))
                (trail_card(trail, now))
            }
        }
    };
    document("My account", &html! {}, &body)
}

fn sessions_card(here: &Session, sessions: &[Session], csrf: &str, now: Unix) -> Markup {
    html! {
        section.card {
            h2 { "Where you are signed in" }
            ul.rows {
                @for session in sessions {
                    li {
                        div.grow {
                            strong { (browser(&session.origin.agent)) }
                            @if session.id == here.id { " " span.badge.good { "this one" } }
                            p.quiet {
                                @if !session.origin.address.is_empty() { (session.origin.address) " · " }
                                "seen " time datetime=(rfc3339(session.seen)) { (ago(session.seen, now)) }
                                " · began " time datetime=(rfc3339(session.began)) { (ago(session.began, now)) }
                            }
                        }
                        @if session.id != here.id {
                            form method="post" action="/session/end" {
                                input type="hidden" name="csrf" value=(csrf);
                                input type="hidden" name="id" value=(session.id);
                                button.small { "End" }
                            }
                        }
                    }
                }
            }
            form method="post" action="/everywhere" {
                input type="hidden" name="csrf" value=(csrf);
                button.danger { "Log out everywhere" }
                span.quiet.beside { "Ends all of these, and what they opened, at once." }
            }
        }
    }
}

fn password_card(here: &Session, csrf: &str) -> Markup {
    html! {
        section.card {
            h2 { "Password" }
            form.fields method="post" action="/password" {
                input type="hidden" name="csrf" value=(csrf);
                input type="text" name="username" value=(here.person.name) autocomplete="username" hidden;
                div {
                    label for="old" { "Present password" }
                    input #old name="old" type="password" autocomplete="current-password" required;
                }
                div {
                    label for="new" { "New password" }
                    input #new name="new" type="password" autocomplete="new-password" minlength="12" required;
                }
                div {
                    label for="again" { "Once more" }
                    input #again name="again" type="password" autocomplete="new-password" minlength="12" required;
                }
                div.end { button.primary { "Change password" } }
            }
            p.quiet { "At least 12 characters; a few words are easier to keep in mind than signs. Every other session ends." }
        }
    }
}

fn trail_card(trail: &[Entry], now: Unix) -> Markup {
    html! {
        section.card {
            h2 { "What happened of late" }
            ul.rows.small.trail {
                @for entry in trail {
                    li {
                        span.badge.(if matches!(entry.what.as_str(), "refusal" | "reuse" | "lockout") { "bad" } else { "plain" }) {
                            (said(&entry.what))
                        }
                        span.grow {
                            (entry.detail)
                            @if entry.app == wellknown::ADMIN { " Admin" }
                            @else if !entry.app.is_empty() { " " code { (entry.app) } }
                            @if !entry.address.is_empty() { " from " (entry.address) }
                        }
                        time.quiet datetime=(rfc3339(entry.at)) { (ago(entry.at, now)) }
                    }
                }
            }
        }
    }
}

fn said(what: &str) -> &str {
    match what {
        "login" => "signed in",
        "logout" => "signed out",
        "opened" => "opened an app",
        "refusal" => "refused",
        "lockout" => "locked out",
        "reuse" => "stolen token?",
        "password" => "new password",
        other => other,
    }
}

/// What a browser is to people: `Firefox on Linux`.
fn browser(agent: &str) -> String {
    let first = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
    };
    let name = first(&[
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
        ("Python", "a Python program"),
        ("Go-http", "a Go program"),
        ("nexushub", "nexushub"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        _ => "Some program".to_owned(),
    }
}

/// A wait for people.
pub(crate) fn duration(seconds: i64) -> String {
    match seconds {
        ..=1 => "a second".to_owned(),
        2..=119 => format!("{seconds} seconds"),
        _ => format!("{} minutes", (seconds + 59) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_which_browser_it_was_and_how_long_to_wait() {
        let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(browser(agent), "Firefox on Linux");
        assert_eq!((browser("curl/8"), browser("")), ("curl".to_owned(), "Some program".to_owned()));
        assert_eq!(
            (duration(1), duration(90), duration(900)),
            ("a second".into(), "90 seconds".into(), "15 minutes".into())
        );
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let errand = Errand { app: "a".into(), state: "s".into(), name: "<script>\"".into() };
        let page = format!("{:?}", sign_in(&errand, "<b>", Some("<i>"), "c", Some("<u>")));
        assert!(!["<script>", "<b>", "<i>", "<u>"].iter().any(|tag| page.contains(tag)), "{page}");
    }
}
