//! The admin app, asked who somebody is and what they may open.

use axum::http::Method;
use nexushub_applib::{
    Refusal,
    calls::{Call, Entrance, Error},
};
use serde::Deserialize;
use serde_json::json;

use crate::{config::ADMIN, store::Person};

/// The admin app, over the internal entrance.
#[derive(Debug, Clone)]
pub(crate) struct Directory(pub Entrance);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    success: bool,
    #[serde(rename = "UserID", default)]
    user_id: i64,
    #[serde(default)]
    user_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Access {
    access_granted: bool,
}

impl Directory {
    /// Who has this name and password, if anybody.
    pub(crate) async fn who(&self, name: &str, password: &str) -> Result<Option<Person>, Error> {
        let call = post("/internal/dologin").json(&json!({ "Username": name, "Password": password }));
        let known: Known = self.0.ask(call).await?;
        let spelt = if known.user_name.is_empty() { name.to_owned() } else { known.user_name };
        Ok(known.success.then_some(Person { id: known.user_id, name: spelt }))
    }

    /// Who has this name, of whom somebody else knows that it is them.
    pub(crate) async fn named(&self, name: &str) -> Result<Option<Person>, Error> {
        let known: Known = self.0.ask(post("/internal/user").json(&json!({ "Username": name }))).await?;
        Ok(known.success.then_some(Person { id: known.user_id, name: known.user_name }))
    }

    /// Whether a user may open an app.
    pub(crate) async fn may_open(&self, user: i64, app: &str) -> Result<bool, Error> {
        let call = post("/internal/checkAccess").json(&json!({ "UserID": user, "ApplicationID": app }));
        self.0.ask::<Access>(call).await.map(|access| access.access_granted)
    }

    /// Gives a user a new password; the inner error says why not.
    pub(crate) async fn set_password(
        &self,
        user: i64,
        old: &str,
        new: &str,
        address: &str,
    ) -> Result<Result<(), String>, Error> {
        let asked = json!({ "UserID": user, "Old": old, "New": new, "Address": address });
        let call = post("/internal/setPassword").json(&asked);
        match self.0.call(call).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 400) => {
                Ok(Err(error.said()))
            }
            Err(error) => Err(error),
        }
    }
}

fn post(path: &str) -> Call {
    Call::new(Some(ADMIN), Method::POST, path)
}

/// What somebody is told while admin is away.
pub(crate) fn away(error: &Error) -> Refusal {
    eprintln!("the admin app did not answer: {error}");
    Refusal::away("signing in is not possible just now: the admin app does not answer; try again in a moment")
}
