//! Apps in boxes, and scripts that they run from within.

use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Limits},
};

use crate::{App, Platform};

impl Platform {
    /// Has an app run under a driver and within bounds, and waits for it.
    ///
    /// # Panics
    /// When it doesn't run.
    pub async fn run_boxed(&self, name: &str, driver: Driver, limits: Limits) -> InstanceStatus {
        let mut instance = self.instance(&App::named(name).within(driver));
        instance.limits = Some(limits);
        self.put(instance).await.unwrap();
        self.running(name).await
    }

    /// Has an app run a script: whether it ended well, and what it said.
    ///
    /// # Panics
    /// When the app does not answer.
    pub async fn sh(&self, name: &str, script: &str) -> (bool, String) {
        let answer = self.https().post(name, "/sh", script.to_owned()).await;
        assert!(matches!(answer.status.as_u16(), 200 | 500), "{script}: {} {}", answer.status, answer.text());
        (answer.status == 200, answer.text())
    }

    /// What a script says that ends well.
    ///
    /// # Panics
    /// When it does not.
    pub async fn says(&self, name: &str, script: &str) -> String {
        let (well, said) = self.sh(name, script).await;
        assert!(well, "{script}: {said}");
        said.trim().to_owned()
    }
}
