//! Tells the login app whose sessions are to end: kept in the database until login has heard it, over restarts of both.

use std::sync::Arc;

use axum::http::Method;
use nexushub_applib::{Refusal, calls::Call, outbox};
use serde_json::json;

use crate::{
    Admin,
    store::{self, LOGIN},
};

/// Delivers for ever.
pub(crate) async fn deliver(admin: Arc<Admin>) {
    outbox::deliver("login was not told whose sessions end", &admin.ended, || round(&admin)).await;
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Call(#[from] nexushub_applib::calls::Error),
    #[error(transparent)]
    Kept(#[from] Refusal),
}

/// The one longest waited for; false when there was none.
async fn round(admin: &Admin) -> Result<bool, Error> {
    let next = admin.db.run(|tx| Ok::<_, Refusal>(store::next_revocation(tx)?)).await?;
    let Some((number, user)) = next else { return Ok(false) };
    let call = Call::new(Some(LOGIN), Method::POST, "/internal/revoke").json(&json!({ "UserID": user }));
    admin.platform.0.call(call).await?;
    admin.db.run(move |tx| Ok::<_, Refusal>(store::revoked(tx, number)?)).await?;
    Ok(true)
}
