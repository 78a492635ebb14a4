//! What has to be told to another app, however long that app is away: kept in the app's own database, in the transaction that
//! gave the reason, and taken out once it was told. This is what tells it.

use std::{fmt::Display, time::Duration};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// The first pause after a failure; doubles up to the longest, after which it is looked for news in any case.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Delivers for ever: a round tells some of what is kept, and whether there was anything; `news` says that there is more. What
/// could not be told is said on standard error, after `what`, and tried again.
pub async fn deliver<E: Display, F: Future<Output = Result<bool, E>>>(
    what: &'static str,
    news: &Notify,
    mut round: impl FnMut() -> F,
) {
    let mut pause = FIRST;
    loop {
        match round().await {
            Ok(true) => pause = FIRST,
            Ok(false) => drop(timeout(LONGEST, news.notified()).await),
            Err(error) => {
                eprintln!("{what}, and will be: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_and_what_is_new_is_told_at_once() {
        let (news, rounds) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (ring, count) = (Arc::clone(&news), Arc::clone(&rounds));
        let answers = [Err("away"), Err("away"), Ok(true), Ok(false), Ok(true), Ok(false)];
        let delivering = tokio::spawn(async move {
            deliver("nobody was told", &ring, || {
                let answer = answers.get(count.fetch_add(1, Ordering::SeqCst)).copied();
                std::future::ready(answer.unwrap_or(Ok(false)))
            })
            .await;
        });
        let told = async |number| {
            while rounds.load(Ordering::SeqCst) < number {
                tokio::task::yield_now().await;
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            rounds.load(Ordering::SeqCst)
        };
        assert_eq!(told(4).await, 4, "two failures, one that told something, and one that found nothing");
        news.notify_one();
        assert_eq!(told(6).await, 6);
        delivering.abort();
    }
}
