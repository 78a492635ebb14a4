//! Requests for debug-api: developers', who show an administrator's access token or one that debug-api judges, and the admin app's.

use std::sync::Arc;

use http::{HeaderValue, Response};
use nexushub_chassis::credentials::bearer;
use tokio::task::spawn_blocking;

use super::{Exchange, too_large};
use crate::{
    body::ResponseBody, clock, decide::unauthorized, identity::Identity, refusal::Refusal, tokens::Tokens,
};

impl Exchange {
    /// Passes the request to debug-api: a developer's, who shows an administrator's token, or else for it to judge.
    pub(super) async fn debug(&mut self, authority: &HeaderValue) -> Result<Response<ResponseBody>, Refusal> {
        let token = bearer(&self.parts.headers).filter(|token| Tokens::is_one(token));
        let Some(token) = token else { return self.ask_debug_api(authority, &Identity::default()).await };
        match self.proxy.gate.developer(token, clock::about_unix_ms()) {
            Ok(access) => {
                let stays = &self.proxy.gate.stays;
                if stays.is_due(clock::about_unix_ms()) {
                    let stays = Arc::clone(stays);
                    spawn_blocking(move || stays.keep());
                }
                let by = Identity { caller: None, user: Some(access.user), spent: true };
                self.ask_debug_api(authority, &by).await
            }
            Err(bad) => {
                self.bad = Some(bad);
                let refusal = unauthorized();
                self.note_refusal(&refusal, authority);
                Err(refusal)
            }
        }
    }

    pub(super) async fn ask_debug_api(
        &mut self,
        authority: &HeaderValue,
        by: &Identity,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let pool = Arc::clone(&self.proxy.debug);
        self.first_byte = self.proxy.timing.debug_first_byte;
        let token = self.proxy.debug_token.clone();
        self.prepare(authority, by, token.as_ref(), false);
        by.tell(&mut self.parts.headers, None, clock::about_unix_ms);
        self.body.bound(self.proxy.body_bytes).map_err(|_| too_large())?;
        let taken = self.take(&pool).await.map_err(|error| self.fail(&error.into()))?;
        self.exchange(None, &pool, taken).await
    }
}
