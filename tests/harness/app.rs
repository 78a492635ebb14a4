//! App instances: asked of provider, watched at procmgr, told what to do through files.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use nexushub_proto::{
    procmgr::{
        InstanceStatus, State, WatchInstancesRequest, procmgr_service_client::ProcmgrServiceClient,
        watch_instances_response::Event,
    },
    provider::{
        Driver, Health, Instance, PutInstanceRequest, RemoveInstanceRequest,
        provider_service_client::ProviderServiceClient,
    },
};
use serde_json::Value;
use tokio::time::timeout;
use tonic::Status;

use crate::{Platform, processes, soon, until, workshop};

/// Pause before a stream is asked for again when nobody listens: between a supervisor's death and the next one.
const RETRY: Duration = Duration::from_millis(100);

/// An app that should run: the probe, under a name.
#[derive(Debug, Clone)]
pub struct App {
    /// Id and host name.
    pub name: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its health check, where it differs.
    pub health: Option<Health>,
    /// Files that lie in its data folder before it starts.
    pub data: Vec<(String, String)>,
    /// Its box.
    pub driver: Driver,
}

impl App {
    /// The probe, well behaved.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            env: Vec::new(),
            health: None,
            data: Vec::new(),
            driver: Driver::Process,
        }
    }

    /// In a box of this kind.
    #[must_use]
    pub fn within(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a file in its data folder.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.data.push((name.to_owned(), text.to_owned()));
        self
    }

    /// With a health check of its own.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }
}

/// What procmgr says of all instances.
pub type Instances = BTreeMap<String, InstanceStatus>;

impl Platform {
    /// The folder of an app's data.
    #[must_use]
    pub fn data_of(&self, name: &str) -> PathBuf {
        self.home.path().join("data").join(name)
    }

    /// Puts a file into an app's data folder, whole at once.
    ///
    /// # Panics
    /// When it can't.
    pub fn tell(&self, app: &str, file: &str, text: &str) {
        let folder = self.data_of(app);
        fs::write(folder.join(".new"), text).unwrap();
        fs::rename(folder.join(".new"), folder.join(file)).unwrap();
    }

    /// Takes a file out of an app's data folder.
    ///
    /// # Panics
    /// When it isn't there.
    pub fn untell(&self, app: &str, file: &str) {
        fs::remove_file(self.data_of(app).join(file)).unwrap();
    }

    /// The processes that an app's starts were, oldest first.
    #[must_use]
    pub fn starts_of(&self, app: &str) -> Vec<u32> {
        let text = fs::read_to_string(self.data_of(app).join("starts")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The processes of apps of this platform that run now.
    #[must_use]
    pub fn app_processes(&self) -> Vec<u32> {
        processes::running_from(self.home.path())
    }

    /// A release: a folder with the probe as its `bin/app`.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn release(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join("releases").join(name);
        fs::create_dir_all(folder.join("bin")).unwrap();
        let app = folder.join("bin/app");
        if !app.exists() {
            workshop::install(&workshop::program("nexushub-probe"), &app);
        }
        folder
    }

    /// The instance that an app means.
    ///
    /// # Panics
    /// When its folders can't be made.
    #[must_use]
    pub fn instance(&self, app: &App) -> Instance {
        let data = self.data_of(&app.name);
        fs::create_dir_all(&data).unwrap();
        for (name, text) in &app.data {
            fs::write(data.join(name), text).unwrap();
        }
        Instance {
            id: app.name.clone(),
            app_id: format!("app-{}", app.name),
            display_name: app.name.clone(),
            host_name: app.name.clone(),
            release: self.release(&app.name).display().to_string(),
            data: data.display().to_string(),
            driver: app.driver.into(),
            env: app.env.iter().cloned().collect(),
            health: app.health.clone(),
            ..Instance::default()
        }
    }

    /// Asks provider for an instance.
    ///
    /// # Errors
    /// When provider says no.
    pub async fn put(&self, instance: Instance) -> Result<u64, Status> {
        let mut provider = ProviderServiceClient::new(self.operate("provider"));
        let request = PutInstanceRequest { instance: Some(instance) };
        soon("PutInstance", provider.put_instance(request)).await.map(|answer| answer.into_inner().revision)
    }

    /// Asks provider to forget an instance.
    ///
    /// # Errors
    /// When provider says no.
    pub async fn remove(&self, id: &str) -> Result<bool, Status> {
        let mut provider = ProviderServiceClient::new(self.operate("provider"));
        let request = RemoveInstanceRequest { id: id.to_owned() };
        soon("RemoveInstance", provider.remove_instance(request))
            .await
            .map(|answer| answer.into_inner().removed)
    }

    /// Asks for an app and waits until it runs, answers over HTTPS, and a proxy that has to begin anew would know it.
    ///
    /// # Panics
    /// When it doesn't.
    pub async fn run_app(&self, app: &App) -> InstanceStatus {
        let instance = self.instance(app);
        self.hand_over();
        self.put(instance).await.unwrap();
        let status = self.running(&app.name).await;
        let answer = self.https().get(&app.name, "/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["pid"], status.pid);
        self.kept(&app.name).await;
        status
    }

    /// Waits until the proxy's table, as it is kept, sends requests to an app.
    ///
    /// # Panics
    /// When it never does.
    pub async fn kept(&self, id: &str) {
        let file = self.state().join("proxy/routes.json");
        until("the proxy keeps its table", || {
            let table: Value = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok())?;
            let routed = |entry: &&Value| entry["id"] == id && entry["routed"] == true;
            table["instances"].as_array()?.iter().find(routed).map(drop)
        })
        .await;
    }

    /// Waits until whoever answers at a host is this process: procmgr's word reaches the proxy a moment later.
    ///
    /// # Panics
    /// When it never is.
    pub async fn answers_as(&self, host: &str, pid: u32) {
        soon("requests reach this process", async {
            let told = async || -> Option<Value> {
                serde_json::from_str(&self.https().get(host, "/").await.text()).ok()
            };
            while told().await.is_none_or(|told| told["pid"] != pid) {}
        })
        .await;
    }

    /// Waits until an instance runs and is routed.
    ///
    /// # Panics
    /// When it doesn't.
    pub async fn running(&self, id: &str) -> InstanceStatus {
        self.instance_until(id, "runs", |status| status.state() == State::Running && status.routed).await
    }

    /// Waits until an instance is as it should be.
    ///
    /// # Panics
    /// When it never is.
    pub async fn instance_until(
        &self,
        id: &str,
        what: &str,
        pleases: impl Fn(&InstanceStatus) -> bool,
    ) -> InstanceStatus {
        let all =
            self.instances_until(&format!("{id} {what}"), |all| all.get(id).is_some_and(&pleases)).await;
        all[id].clone()
    }

    /// Waits until the instances are as they should be, through whatever happens to procmgr meanwhile.
    ///
    /// # Panics
    /// When they never are.
    pub async fn instances_until(&self, what: &str, pleases: impl Fn(&Instances) -> bool) -> Instances {
        soon(what, async {
            loop {
                if let Ok(found) = self.follow(&pleases).await {
                    return found;
                }
                let mut attempt = tokio::time::interval(RETRY);
                attempt.tick().await;
                attempt.tick().await;
            }
        })
        .await
    }

    /// Follows one `WatchInstances` stream until the instances please or it breaks.
    async fn follow(&self, pleases: impl Fn(&Instances) -> bool) -> Result<Instances, Status> {
        let mut procmgr = ProcmgrServiceClient::new(self.operate("procmgr"));
        let mut stream = procmgr.watch_instances(WatchInstancesRequest::default()).await?.into_inner();
        let mut all = Instances::new();
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(Event::Snapshot(snapshot)) => {
                    all = snapshot.instances.into_iter().map(|status| (status.id.clone(), status)).collect();
                }
                Some(Event::Changed(status)) => drop(all.insert(status.id.clone(), status)),
                Some(Event::RemovedId(id)) => drop(all.remove(&id)),
                None => {}
            }
            if pleases(&all) {
                return Ok(all);
            }
        }
        Err(Status::unavailable("the stream ended"))
    }

    /// One instance now; none when procmgr knows none.
    ///
    /// # Panics
    /// When procmgr does not answer.
    pub async fn instance_now(&self, id: &str) -> Option<InstanceStatus> {
        let mut procmgr = ProcmgrServiceClient::new(self.operate("procmgr"));
        let request = nexushub_proto::procmgr::ListInstancesRequest {};
        let all = timeout(crate::HANG, procmgr.list_instances(request)).await.expect("an answer").unwrap();
        all.into_inner().instances.into_iter().find(|status| status.id == id)
    }
}
