//! Tasks without which a daemon is not itself: if one of them ends before the drain, by a panic or otherwise, the daemon ends
//! with a fault and its parent starts it anew, rather than living on with a part missing.

use nexushub_launch::Fault;
use tokio::task::JoinSet;

/// The vital tasks of a daemon. Dropped, it ends them.
#[derive(Debug, Default)]
pub struct Vital {
    tasks: JoinSet<&'static str>,
}

impl Vital {
    /// Starts one under a name for people.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// The fault of the first one that ends; never, while all of them live.
    pub async fn ended(&mut self) -> Fault {
        match self.tasks.join_next().await {
            Some(Ok(name)) => fault(name, "it returned"),
            Some(Err(error)) => fault("a vital task", &error.to_string()),
            None => std::future::pending().await,
        }
    }
}

fn fault(name: &str, why: &str) -> Fault {
    Fault::new(
        "task_ended",
        format!("a task without which the daemon cannot go on has ended: {why}"),
        name,
        "see the log above",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_task_that_ends_is_named() {
        let mut vital = Vital::default();
        vital.spawn("feed", std::future::pending());
        vital.spawn("keeper", async {});
        assert_eq!(vital.ended().await.object, "keeper");
    }

    #[tokio::test]
    async fn a_panic_is_an_end_too() {
        let mut vital = Vital::default();
        vital.spawn("feed", async { unreachable!("as broken code does") });
        assert_eq!(vital.ended().await.code, "task_ended");
    }
}
