//! An application as the admin app lists it, and as it is kept on disk: by the contract's names, and judged again whenever it is read.
//! What an earlier admin app does not say is as if there were no such key; what a later one says besides is passed over.

use std::collections::BTreeSet;

use nexushub_chassis::names::{HostName, InstanceId};
use serde::{Deserialize, Serialize};

use crate::{
    instance::{self, Entry, Fields, Source},
    route::Route,
    typed::{BadField, Judge, limits, name},
};

/// One row of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Which instance it is.
    pub instance_id: String,
    /// What a package is for.
    pub app_id: String,
    /// For people; none or empty = the app id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Where it answers.
    pub host_name: String,
    /// It is for users who are signed in.
    #[serde(default)]
    pub sign_in: bool,
    /// Instances that may ask for its `/api`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// Instances that may ask for its `/internal`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub internal_callers: Vec<String>,
    /// Origins whose scripts may ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<String>,
    /// Bounds on what it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Bounds on what it uses; absent = as below, and at last the defaults of procmgr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)] // as in `instance::Limits`
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
}

impl From<Limits> for instance::Limits {
    fn from(said: Limits) -> Self {
        let Limits { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes } =
            said;
        Self { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes }
    }
}

impl From<instance::Limits> for Limits {
    fn from(judged: instance::Limits) -> Self {
        let instance::Limits {
            memory_bytes,
            cpu_percent,
            processes,
            open_files,
            data_bytes,
            tmp_bytes,
            log_bytes,
        } = judged;
        Self { memory_bytes, cpu_percent, processes, open_files, data_bytes, tmp_bytes, log_bytes }
    }
}

impl Application {
    /// The entry that it comes to.
    ///
    /// # Errors
    /// The first value that can't be.
    pub fn judged(self, judge: &Judge) -> Result<Entry, BadField> {
        let bad = |key| move |why| BadField { key, why };
        let id = InstanceId::parse(&self.instance_id).map_err(|e| bad("instanceId")(e.to_string()))?;
        let host_name =
            HostName::parse(&self.host_name, &judge.zone).map_err(|e| bad("hostName")(e.to_string()))?;
        let Self { callers, internal_callers, sign_in, cors, .. } = self;
        let route = judge.route(Route { callers, internal_callers, sign_in, cors, ..Route::default() })?;
        let bounds = self.limits.map(|said| limits(said.into())).transpose().map_err(bad("limits"))?;
        let display_name = self.display_name.filter(|name| !name.is_empty());
        let fields = Fields {
            app_id: Some(name(self.app_id).map_err(bad("appId"))?),
            display_name: display_name.map(name).transpose().map_err(bad("displayName"))?,
            host_name: Some(host_name),
            route: (route != Route::default()).then_some(route),
            limits: bounds.filter(|bounds| *bounds != instance::Limits::default()),
            ..Fields::default()
        };
        Ok(Entry { id, fields, pins: BTreeSet::new(), source: Source::Dynamic })
    }
}

impl From<&Entry> for Application {
    fn from(entry: &Entry) -> Self {
        let (id, fields) = (entry.id.to_string(), &entry.fields);
        let Route { sign_in, callers, internal_callers, cors, .. } = fields.route.clone().unwrap_or_default();
        Self {
            app_id: fields.app_id.clone().unwrap_or_else(|| id.clone()),
            instance_id: id,
            display_name: fields.display_name.clone(),
            host_name: fields.host_name.as_ref().map(ToString::to_string).unwrap_or_default(),
            limits: fields.limits.map(Into::into),
            sign_in,
            callers,
            internal_callers,
            cors,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_chassis::names::Zone;
    use serde_json::{Value, json};

    use super::*;

    fn judged(more: &Value) -> Result<Entry, &'static str> {
        let mut row = json!({ "instanceId": "i", "appId": "shop", "hostName": "shop" });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let judge = Judge { zone: Zone::new("b.localhost", 8443), root: None };
        serde_json::from_value::<Application>(row).map_err(|_| "shape")?.judged(&judge).map_err(|bad| bad.key)
    }

    #[test]
    fn what_it_says_of_its_callers_and_limits_is_in_force_and_kept_as_it_was_said() {
        let limits = json!({ "memoryBytes": 64 << 20, "cpuPercent": 50, "processes": 64, "openFiles": 128, "dataBytes": 1 << 20,
            "tmpBytes": 1 << 20, "logBytes": 1 << 19, "later": 1 });
        let more = json!({ "callers": ["a"], "internalCallers": ["b"], "cors": ["https://A.example"], "limits": limits });
        let entry = judged(&more).unwrap();
        let (route, limits) = (entry.fields.route.clone().unwrap(), entry.fields.limits.unwrap());
        assert_eq!(
            (&*route.callers, &*route.internal_callers),
            (&["a".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!((&*route.cors, route.sign_in), (&["https://a.example".to_owned()][..], false));
        assert_eq!(
            (limits.memory_bytes, limits.cpu_percent, limits.tmp_bytes),
            (Some(64 << 20), Some(50), Some(1 << 20))
        );
        let kept = serde_json::to_value(Application::from(&entry)).unwrap();
        assert_eq!(judged(&kept).unwrap(), entry);
    }

    #[test]
    fn what_an_earlier_admin_app_does_not_say_is_not_there() {
        for more in [
            json!({}),
            json!({ "callers": [], "internalCallers": [], "cors": [], "limits": {} }),
            json!({ "limits": null }),
        ] {
            let entry = judged(&more).unwrap();
            assert_eq!((entry.fields.route.is_none(), entry.fields.limits), (true, None), "{more}");
            let kept = serde_json::to_string(&Application::from(&entry)).unwrap();
            assert!(
                !kept.contains("allers") && !kept.contains("limits"),
                "an earlier provider reads it: {kept}"
            );
        }
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_key() {
        for (more, key) in [
            (json!({ "callers": ["../x"] }), "callers"),
            (json!({ "callers": vec!["a"; 65] }), "callers"),
            (json!({ "internalCallers": ["@provider"] }), "internal_callers"),
            (json!({ "cors": ["*"] }), "cors"),
            (json!({ "limits": { "memoryBytes": 1 } }), "limits"),
            (json!({ "limits": { "dataBytes": u64::MAX } }), "limits"),
            (json!({ "limits": { "cpuPercent": -1 } }), "shape"),
            (json!({ "limits": [] , "callers": "a" }), "shape"),
            (json!({ "callers": null }), "shape"),
        ] {
            assert_eq!(judged(&more).unwrap_err(), key, "{more}");
        }
    }
}
