//! What login asks: whether a name and a password go together, whose a name is, who may open what, and another password for
//! somebody. And what debug-api hands over: an application that a developer made permanent.

use std::sync::Arc;

use axum::{Json, extract::State};
use nexushub_applib::{Identity, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Admin, Asker,
    events::{Change, Written},
    password,
    store::{self, ADMIN, Event, LOGIN, User},
};

/// A name and a password, in the earlier generation's letters or in lower case.
#[derive(Deserialize)]
pub(crate) struct Claim {
    #[serde(rename = "Username", alias = "username")]
    name: String,
    #[serde(rename = "Password", alias = "password")]
    password: String,
}

/// A name alone.
#[derive(Deserialize)]
pub(crate) struct Named {
    #[serde(rename = "Username")]
    name: String,
}

/// Somebody and an app.
#[derive(Deserialize)]
pub(crate) struct Wish {
    #[serde(rename = "UserID", alias = "userId", alias = "userID")]
    user: i64,
    #[serde(rename = "ApplicationID", alias = "applicationId", alias = "applicationID")]
    app: String,
}

/// A password against another.
#[derive(Deserialize)]
pub(crate) struct Renewal {
    #[serde(rename = "UserID")]
    user: i64,
    #[serde(rename = "Old")]
    old: String,
    #[serde(rename = "New")]
    new: String,
    /// From where; an earlier login app does not say it.
    #[serde(rename = "Address", default)]
    from: String,
}

/// Who hands over applications.
const DEBUG_API: &str = "@debug-api";
/// Characters of the name of whoever had it do so.
const BY_MAX: usize = 128;

/// An application that runs already.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Adopted {
    instance_id: String,
    /// Who made it permanent, for people.
    by: String,
    #[serde(flatten)]
    written: Written,
}

/// `POST /internal/adopt`: the same twice is done once.
pub(crate) async fn adopt(
    State(admin): State<Arc<Admin>>,
    who: Identity,
    Json(Adopted { instance_id, by, written }): Json<Adopted>,
) -> Result<Json<Value>, Refusal> {
    if who.user.is_some() || !who.is(DEBUG_API) {
        return Err(Refusal::forbidden("not for this caller"));
    }
    let by: String = by.chars().filter(|char| !char.is_control()).take(BY_MAX).collect();
    let change = Change::AdoptApplication { instance_id, written };
    let by = Asker { name: by, from: String::new() };
    let done = admin.publish(uuid::Uuid::new_v4().to_string(), &by, change).await?;
    Ok(Json(json!({ "instanceId": done.made })))
}

fn only_login(who: &Identity) -> Result<(), Refusal> {
    let known = who.user.is_none() && (who.is(LOGIN) || who.is(ADMIN));
    known.then_some(()).ok_or_else(|| Refusal::forbidden("not for this caller"))
}

/// `POST /internal/dologin`: takes as long for a name of nobody's.
pub(crate) async fn do_login(
    State(admin): State<Arc<Admin>>,
    who: Identity,
    Json(Claim { name, password }): Json<Claim>,
) -> Result<Json<Value>, Refusal> {
    only_login(&who)?;
    let found = admin.db.run(move |tx| Ok::<_, Refusal>(store::user_named(tx, &name)?)).await?;
    let (user, hash) = found.unzip();
    let good = admin.passwords.verify(hash, password).await?;
    Ok(found_or_not(user.filter(|_| good)))
}

/// `POST /internal/user`: for login, where an identity provider says who somebody is.
pub(crate) async fn user(
    State(admin): State<Arc<Admin>>,
    who: Identity,
    Json(Named { name }): Json<Named>,
) -> Result<Json<Value>, Refusal> {
    only_login(&who)?;
    let found = admin.db.run(move |tx| Ok::<_, Refusal>(store::user_named(tx, &name)?)).await?;
    Ok(found_or_not(found.map(|(user, _)| user)))
}

fn found_or_not(user: Option<User>) -> Json<Value> {
    Json(match user {
        Some(user) => json!({ "Success": true, "UserID": user.id, "UserName": user.name }),
        None => json!({ "Success": false, "UserID": 0, "UserName": "" }),
    })
}

/// `POST /internal/checkAccess`
pub(crate) async fn check_access(
    State(admin): State<Arc<Admin>>,
    who: Identity,
    Json(Wish { user, app }): Json<Wish>,
) -> Result<Json<Value>, Refusal> {
    only_login(&who)?;
    let may = admin.db.run(move |tx| Ok::<_, Refusal>(store::may_open(tx, user, &app)?)).await?;
    Ok(Json(json!({ "AccessGranted": may })))
}

/// `POST /internal/setPassword`: a person's own, who knows the present one.
pub(crate) async fn set_password(
    State(admin): State<Arc<Admin>>,
    who: Identity,
    Json(Renewal { user, old, new, from }): Json<Renewal>,
) -> Result<Json<Value>, Refusal> {
    only_login(&who)?;
    let found = admin.db.run(move |tx| Ok::<_, Refusal>(store::user_of(tx, user)?)).await?;
    let (person, hash) = found.unzip();
    if !admin.passwords.verify(hash, old.clone()).await? {
        return Err(Refusal::bad("the present password is wrong"));
    }
    let person = person.ok_or_else(|| Refusal::bad("there is no such user"))?;
    if old == new {
        return Err(Refusal::bad("the new password is the present one"));
    }
    password::judge(&new, &person.name)?;
    let (hash, now) = (admin.passwords.hash(new).await?, admin.now());
    let id = admin.db.run(move |tx| {
        store::set_hash(tx, user, &hash)?;
        let said = json!({ "userId": user }).to_string();
        let event = Event { id: 0, what: "UpdateUserPassword".into(), at: now, by: person.name, said };
        Ok::<_, Refusal>(store::record(tx, &uuid::Uuid::new_v4().to_string(), &event, &from)?)
    });
    admin.recorded(id.await?);
    Ok(Json(json!({})))
}
