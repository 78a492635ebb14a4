//! Tells the login app whose sessions are to end, and the platform what was changed here, which is a part of its audit log: kept in
//! the database until they have heard it, over restarts of all.

use std::sync::Arc;

use axum::http::Method;
use nexushub_applib::{Refusal, calls::Call, outbox, trail};
use serde_json::json;

use crate::{
    Admin,
    store::{self, LOGIN},
};

/// Delivers for ever.
pub(crate) async fn deliver(admin: Arc<Admin>) {
    let sessions = outbox::deliver("login was not told whose sessions end", &admin.ended, || end_one(&admin));
    tokio::join!(sessions, trail::deliver(&admin.db, &admin.platform.0, &admin.changed));
}

/// Delivers what is left, when the app ends and whoever delivered has ended: to both at once, as there is little time, and who does not
/// answer is not to take it from the other.
pub(crate) async fn rest(admin: &Admin) {
    let sessions = async { while matches!(end_one(admin).await, Ok(true)) {} };
    tokio::join!(sessions, trail::rest(&admin.db, &admin.platform.0));
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Call(#[from] nexushub_applib::calls::Error),
    #[error(transparent)]
    Kept(#[from] Refusal),
}

/// The one longest waited for; false when there was none.
async fn end_one(admin: &Admin) -> Result<bool, Error> {
    let next = admin.db.run(|tx| Ok::<_, Refusal>(store::next_revocation(tx)?)).await?;
    let Some((number, user)) = next else { return Ok(false) };
    let call = Call::new(Some(LOGIN), Method::POST, "/internal/revoke").json(&json!({ "UserID": user }));
    admin.platform.0.call(call).await?;
    admin.db.run(move |tx| Ok::<_, Refusal>(store::revoked(tx, number)?)).await?;
    Ok(true)
}
