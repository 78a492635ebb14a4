//! Changes come as events: one transaction each, with a number that others wait for, and once only by the id that the client
//! gave it. The web interface makes its changes the same way.

use std::collections::BTreeSet;

use nexushub_applib::{
    Refusal, db,
    time::Unix,
    trail::{self, Line},
};
use rusqlite::{Transaction, params};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Admin, Asker, names, password,
    rules::{RuleType, SubjectType},
    store::{self, Application, Event},
    terms::{ALL_MAX, Terms, Wished},
};

/// Most of each kind.
const APPLICATIONS: i64 = 10_000;
const USERS: i64 = 10_000;
const RULES: i64 = 50_000;
/// Characters of each text of a refused change that are written down.
const TOLD_MAX: usize = 256;
/// Characters of a client's id of an event.
const CID_MAX: usize = 128;

/// An application, as somebody writes it.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written {
    pub app_id: String,
    #[serde(default)]
    pub display_name: String,
    pub host_name: String,
    /// Whether it is for people who are signed in; not said = as it is, and of a new one no.
    pub sign_in: Option<bool>,
    #[serde(flatten)]
    pub terms: Wished,
}

/// A change, as it is asked for.
#[derive(Deserialize, Clone)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub(crate) enum Change {
    CreateApplication {
        #[serde(flatten)]
        written: Written,
    },
    UpdateApplication {
        instance_id: String,
        #[serde(flatten)]
        written: Written,
    },
    DeleteApplication {
        instance_id: String,
    },
    /// One that runs already comes to be this app's. Said by the platform alone.
    #[serde(skip)]
    AdoptApplication {
        instance_id: String,
        written: Written,
    },
    AddUser {
        username: String,
        password: String,
    },
    UpdateUser {
        user_id: i64,
        username: String,
    },
    UpdateUserPassword {
        user_id: i64,
        password: String,
    },
    DeleteUser {
        user_id: i64,
    },
    CreateUserAccessRule {
        application_id: String,
        rule_type: RuleType,
        subject_type: SubjectType,
        #[serde(default)]
        subject_id: i64,
    },
    DeleteUserAccessRule {
        rule_id: i64,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub id: i64,
    /// Whether it had been carried out before.
    pub duplicate: bool,
    /// The id of what was made, if anything was.
    pub made: String,
}

/// A client's id of an event.
pub(crate) fn client_id(text: &str) -> Result<String, Refusal> {
    let whole = (1..=CID_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    whole
        .then(|| text.to_owned())
        .ok_or_else(|| Refusal::bad("cid is missing: an id of your own for this event"))
}

impl Admin {
    /// Carries out a change, unless it was before, and has the platform's audit log told, also of one that is refused.
    pub(crate) async fn publish(
        &self,
        cid: String,
        by: &Asker,
        change: Change,
    ) -> Result<Published, Refusal> {
        let (what, about) = (change.kind(), change.about());
        let done = self.carry_out(cid, by.clone(), change).await;
        match &done {
            Ok(done) if done.duplicate => {}
            Ok(done) => {
                self.recorded(done.id);
                self.ended.notify_one();
            }
            Err(refusal) if refusal.status.is_client_error() => self.refused(by, what, about, refusal).await,
            Err(_) => {}
        }
        done
    }

    async fn refused(&self, by: &Asker, what: &str, mut said: Value, why: &Refusal) {
        said["why"] = clipped(&why.text).into();
        let (at, what, Asker { name: by, from }) = (self.now(), what.to_owned(), by.clone());
        let line = Line { at, by, what, said, from, refused: true };
        if let Err(error) = self.db.run(move |tx| Ok::<_, Refusal>(trail::add(tx, &line)?)).await {
            eprintln!("a change that was refused could not be noted: {error}");
        }
        self.changed.notify_one();
    }

    async fn carry_out(&self, cid: String, by: Asker, change: Change) -> Result<Published, Refusal> {
        let (now, base, Asker { name: by, from }) = (self.now(), self.base.clone(), by);
        let hash = self.hash_for(&change, &cid).await?;
        let done = self.db.run(move |tx| {
            if let Some(id) = store::event_by(tx, &cid)? {
                return Ok(Published { id, duplicate: true, made: String::new() });
            }
            let app = changed_rules(tx, &change)?;
            let before = app.as_deref().map_or(Ok(BTreeSet::new()), |app| store::who_may(tx, app))?;
            let (said, made) = apply(tx, &change, hash.as_deref(), &base, now)?;
            if takes_access(&change) && store::administrators(tx)?.is_empty() {
                let why =
                    "then nobody could open this app any more; give somebody else access to Admin first";
                return Err(Refusal::bad(why));
            }
            let after = app.as_deref().map_or(Ok(BTreeSet::new()), |app| store::who_may(tx, app))?;
            for user in before.difference(&after).copied().chain(whose_sessions_end(&change)) {
                store::revoke(tx, user)?;
            }
            let event = Event { id: 0, what: change.kind().to_owned(), at: now, by, said: said.to_string() };
            Ok(Published { id: store::record(tx, &cid, &event, &from)?, duplicate: false, made })
        });
        done.await
    }

    /// The hash of a change's password, made before the transaction, which would hold up all others meanwhile.
    async fn hash_for(&self, change: &Change, cid: &str) -> Result<Option<String>, Refusal> {
        let (user, password) = match change {
            Change::AddUser { username, password } => (username.clone(), password.clone()),
            Change::UpdateUserPassword { user_id, password } => {
                let id = *user_id;
                let user = self.db.run(move |tx| Ok::<_, Refusal>(store::user_of(tx, id)?)).await?;
                (user.map(|(user, _)| user.name).unwrap_or_default(), password.clone())
            }
            _ => return Ok(None),
        };
        let cid = cid.to_owned();
        if self.db.run(move |tx| Ok::<_, Refusal>(store::event_by(tx, &cid)?)).await?.is_some() {
            return Ok(None); // a duplicate is answered as such, and makes no work
        }
        password::judge(&password, &user)?;
        self.passwords.hash(password).await.map(Some)
    }
}

impl Change {
    /// Its type.
    fn kind(&self) -> &'static str {
        match self {
            Self::CreateApplication { .. } => "CreateApplication",
            Self::UpdateApplication { .. } => "UpdateApplication",
            Self::DeleteApplication { .. } => "DeleteApplication",
            Self::AdoptApplication { .. } => "AdoptApplication",
            Self::AddUser { .. } => "AddUser",
            Self::UpdateUser { .. } => "UpdateUser",
            Self::UpdateUserPassword { .. } => "UpdateUserPassword",
            Self::DeleteUser { .. } => "DeleteUser",
            Self::CreateUserAccessRule { .. } => "CreateUserAccessRule",
            Self::DeleteUserAccessRule { .. } => "DeleteUserAccessRule",
        }
    }

    /// What it is about, as it was asked for, where it may be refused: bounded, and without passwords.
    fn about(&self) -> Value {
        match self {
            Self::CreateApplication { written } => json!({ "hostName": clipped(&written.host_name) }),
            Self::UpdateApplication { instance_id, written }
            | Self::AdoptApplication { instance_id, written } => {
                json!({ "instanceId": clipped(instance_id), "hostName": clipped(&written.host_name) })
            }
            Self::DeleteApplication { instance_id } => json!({ "instanceId": clipped(instance_id) }),
            Self::AddUser { username, .. } => json!({ "username": clipped(username) }),
            Self::UpdateUser { user_id, username } => {
                json!({ "userId": user_id, "username": clipped(username) })
            }
            Self::UpdateUserPassword { user_id, .. } | Self::DeleteUser { user_id } => {
                json!({ "userId": user_id })
            }
            Self::CreateUserAccessRule { application_id, rule_type, subject_type, subject_id } => json!({
                "applicationId": clipped(application_id), "ruleType": rule_type, "subjectType": subject_type,
                "subjectId": subject_id,
            }),
            Self::DeleteUserAccessRule { rule_id } => json!({ "ruleId": rule_id }),
        }
    }
}

/// The beginning of a text that nobody has judged.
fn clipped(text: &str) -> String {
    text.chars().take(TOLD_MAX).collect()
}

/// Whether somebody may lose access by a change.
fn takes_access(change: &Change) -> bool {
    use Change::{CreateUserAccessRule, DeleteUser, DeleteUserAccessRule};
    matches!(change, DeleteUser { .. } | CreateUserAccessRule { .. } | DeleteUserAccessRule { .. })
}

/// The user who has to sign in anew after a change, whatever the rules say.
fn whose_sessions_end(change: &Change) -> Option<i64> {
    match change {
        Change::UpdateUserPassword { user_id, .. } | Change::DeleteUser { user_id } => Some(*user_id),
        _ => None,
    }
}

/// The application whose rules a change is about.
fn changed_rules(tx: &Transaction<'_>, change: &Change) -> store::Result<Option<String>> {
    match change {
        Change::CreateUserAccessRule { application_id, .. } => Ok(Some(application_id.clone())),
        Change::DeleteUserAccessRule { rule_id } => store::application_ruled(tx, *rule_id),
        _ => Ok(None),
    }
}

/// What is written down of a change, and the id of what was made.
type Applied = (Value, String);

fn apply(
    tx: &Transaction<'_>,
    change: &Change,
    hash: Option<&str>,
    base: &str,
    now: Unix,
) -> Result<Applied, Refusal> {
    match change {
        Change::CreateApplication { written } => create_application(tx, written, base),
        Change::UpdateApplication { instance_id, written } => {
            update_application(tx, instance_id, written, base)
        }
        Change::DeleteApplication { instance_id } => delete_application(tx, instance_id),
        Change::AdoptApplication { instance_id, written } => {
            adopt_application(tx, instance_id, written, base, now)
        }
        Change::AddUser { username, .. } => add_user(tx, username, hash.unwrap_or_default(), now),
        Change::UpdateUser { user_id, username } => rename_user(tx, *user_id, username),
        Change::UpdateUserPassword { user_id, .. } => {
            let found = store::set_hash(tx, *user_id, hash.unwrap_or_default())?;
            found.then_some(()).ok_or_else(no_user)?;
            Ok((json!({ "userId": user_id }), String::new()))
        }
        Change::DeleteUser { user_id } => delete_user(tx, *user_id),
        Change::CreateUserAccessRule { application_id, rule_type, subject_type, subject_id } => {
            create_rule(tx, application_id, *rule_type, (*subject_type, *subject_id), now)
        }
        Change::DeleteUserAccessRule { rule_id } => delete_rule(tx, *rule_id),
    }
}

fn no_user() -> Refusal {
    Refusal::missing("there is no such user")
}

fn no_application() -> Refusal {
    Refusal::missing("there is no such application")
}

fn bounded(tx: &Transaction<'_>, table: &str, most: i64) -> Result<(), Refusal> {
    let count: i64 = tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    (count < most).then_some(()).ok_or_else(|| Refusal::bad(format!("there may be at most {most} of them")))
}

/// What a constraint forbids is the asker's business, anything else is not.
fn taken(error: rusqlite::Error, why: impl FnOnce() -> String) -> Refusal {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Refusal::new(axum::http::StatusCode::CONFLICT, why())
        }
        _ => db::Error::from(error).into(),
    }
}

/// What is kept of it, once it was judged, in place of what was there.
fn judged(
    id: &str,
    written: &Written,
    base: &str,
    before: Option<&Application>,
) -> Result<Application, Refusal> {
    let app_id = names::app_id(&written.app_id)?;
    let display_name = names::display_name(&written.display_name, &app_id)?;
    let host_name = names::host_name(&written.host_name, base)?;
    let sign_in = written.sign_in.unwrap_or(before.is_some_and(|before| before.sign_in));
    let terms = written.terms.judged(before.map_or(&Terms::default(), |before| &before.terms))?;
    Ok(Application { instance_id: id.to_owned(), app_id, display_name, host_name, sign_in, terms })
}

/// Keeps an application; what is written down of that tells its terms where they changed.
fn kept(tx: &Transaction<'_>, app: Application, before: Option<&Application>) -> Result<Applied, Refusal> {
    store::put_application(tx, &app).map_err(|error| host_taken(error, &app))?;
    if store::terms_bytes(tx)? > ALL_MAX {
        return Err(Refusal::bad("callers, origins and limits of all apps together are too much to keep"));
    }
    let Application { terms, .. } = app.clone();
    let mut said = json!(Application { terms: Terms::default(), ..app });
    if terms != before.map(|before| before.terms.clone()).unwrap_or_default() {
        let Terms { callers, internal_callers, cors, limits } = terms;
        said["terms"] = json!({ "callers": callers, "internalCallers": internal_callers, "cors": cors, "limits": limits });
    }
    let id = said["instanceId"].as_str().unwrap_or_default().to_owned();
    Ok((said, id))
}

fn create_application(tx: &Transaction<'_>, written: &Written, base: &str) -> Result<Applied, Refusal> {
    bounded(tx, "application", APPLICATIONS)?;
    kept(tx, judged(&uuid::Uuid::new_v4().to_string(), written, base, None)?, None)
}

fn update_application(
    tx: &Transaction<'_>,
    id: &str,
    written: &Written,
    base: &str,
) -> Result<Applied, Refusal> {
    let there = store::application_of(tx, id)?.ok_or_else(no_application)?;
    if there.is_own() {
        return Err(Refusal::bad("login and admin belong to the platform and can't be changed"));
    }
    kept(tx, judged(id, written, base, Some(&there))?, Some(&there))
}

/// Under the id that it has. What is this app's already stays as it is. Whoever may open it as one that is elsewhere, which
/// administrators may without a rule, is given one, so that nobody is shut out by it.
fn adopt_application(
    tx: &Transaction<'_>,
    id: &str,
    written: &Written,
    base: &str,
    now: Unix,
) -> Result<Applied, Refusal> {
    match store::application_of(tx, id)? {
        Some(there) if there.app_id == written.app_id => return Ok((json!(there), there.instance_id)),
        Some(there) => return Err(conflict(format!("the instance `{id}` is of `{}`", there.app_id))),
        None => bounded(tx, "application", APPLICATIONS)?,
    }
    let app = judged(&names::instance_id(id)?, written, base, None)?;
    if store::applications(tx)?.iter().any(|other| other.app_id == app.app_id) {
        let why = format!("there is an application `{}` already; upload the package to that one", app.app_id);
        return Err(conflict(why));
    }
    let before = store::who_may(tx, id)?;
    let (mut said, id) = kept(tx, app, None)?;
    let after = store::who_may(tx, &id)?;
    let shut_out = || before.difference(&after);
    for user in shut_out() {
        create_rule(tx, &id, RuleType::Accept, (SubjectType::User, *user), now)?;
    }
    said["rulesMade"] = shut_out().count().into();
    Ok((said, id))
}

fn conflict(why: String) -> Refusal {
    Refusal::new(axum::http::StatusCode::CONFLICT, why)
}

fn host_taken(error: rusqlite::Error, app: &Application) -> Refusal {
    taken(error, || format!("the host name `{}` is taken by another application", app.host_name))
}

fn delete_application(tx: &Transaction<'_>, id: &str) -> Result<Applied, Refusal> {
    let there = store::application_of(tx, id)?.ok_or_else(no_application)?;
    if there.is_own() {
        return Err(Refusal::bad("login and admin belong to the platform and can't be removed"));
    }
    tx.execute("DELETE FROM application WHERE instance_id = ?1", [id])?;
    tx.execute("DELETE FROM rule WHERE application_id = ?1", [id])?;
    Ok((json!({ "instanceId": id, "displayName": there.display_name }), String::new()))
}

fn add_user(tx: &Transaction<'_>, name: &str, hash: &str, now: Unix) -> Result<Applied, Refusal> {
    bounded(tx, "user", USERS)?;
    let name = names::user_name(name)?;
    if store::user_named(tx, &name)?.is_some() {
        return Err(Refusal::new(
            axum::http::StatusCode::CONFLICT,
            format!("there is a user `{name}` already"),
        ));
    }
    let id = store::add_user(tx, &name, hash, now)?;
    Ok((json!({ "userId": id, "username": name }), id.to_string()))
}

fn rename_user(tx: &Transaction<'_>, id: i64, name: &str) -> Result<Applied, Refusal> {
    let name = names::user_name(name)?;
    let update = "UPDATE user SET name = ?2, folded = ?3 WHERE id = ?1";
    let found = tx
        .execute(update, params![id, name, store::fold(&name)])
        .map_err(|error| taken(error, || format!("there is a user `{name}` already")))?;
    (found > 0).then_some(()).ok_or_else(no_user)?;
    Ok((json!({ "userId": id, "username": name }), id.to_string()))
}

fn delete_user(tx: &Transaction<'_>, id: i64) -> Result<Applied, Refusal> {
    let (user, _) = store::user_of(tx, id)?.ok_or_else(no_user)?;
    tx.execute("DELETE FROM user WHERE id = ?1", [id])?;
    tx.execute("DELETE FROM rule WHERE subject_type = 'USER' AND subject_id = ?1", [id])?;
    Ok((json!({ "userId": id, "username": user.name }), String::new()))
}

fn create_rule(
    tx: &Transaction<'_>,
    app: &str,
    rule: RuleType,
    (subject, id): (SubjectType, i64),
    now: Unix,
) -> Result<Applied, Refusal> {
    bounded(tx, "rule", RULES)?;
    // Of an instance that is not in the table, as a static one, too: who may open it is decided here.
    let app = app.trim();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !(1..=64).contains(&app.len()) || !app.bytes().all(good) {
        return Err(no_application());
    }
    let id = if subject == SubjectType::Group { 0 } else { id };
    if subject == SubjectType::User && store::user_of(tx, id)?.is_none() {
        return Err(no_user());
    }
    let insert = "INSERT INTO rule (application_id, rule_type, subject_type, subject_id, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    tx.execute(insert, params![app, store::kept(rule), store::kept(subject), id, now])
        .map_err(|error| taken(error, || "there is such a rule already".to_owned()))?;
    let made = tx.last_insert_rowid();
    let said = json!({ "ruleId": made, "applicationId": app, "ruleType": rule, "subjectType": subject, "subjectId": id });
    Ok((said, made.to_string()))
}

fn delete_rule(tx: &Transaction<'_>, id: i64) -> Result<Applied, Refusal> {
    let rule = store::rules(tx, None)?.into_iter().find(|rule| rule.id == id);
    let mut said = json!(rule.ok_or_else(|| Refusal::missing("there is no such rule"))?);
    tx.execute("DELETE FROM rule WHERE id = ?1", [id])?;
    said["ruleId"] = id.into();
    Ok((said, String::new()))
}
