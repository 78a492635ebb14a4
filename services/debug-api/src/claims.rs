//! Which host names others have than developers: the configuration's instances and the admin app's. Provider judges that in the end;
//! here it is for those who should hear it before they have uploaded anything. Pure.

use nexushub_proto::provider::{Instance, ListInstancesResponse, Origin};

/// Who of the configuration or of the admin app has a host name that an application would need, which is all of it.
pub(crate) fn holder<'w>(wanted: &'w ListInstancesResponse, host: &str) -> Option<&'w Instance> {
    let mut others = wanted.instances.iter().chain(&wanted.waiting);
    others.find(|other| other.origin() != Origin::Debug && claims(other, host))
}

/// Whether an instance has all of a host name, or lets nobody else in by it. Beside one that has a part of it there may be others.
pub(crate) fn claims(instance: &Instance, host: &str) -> bool {
    let route = instance.route.as_ref();
    let further = route.is_some_and(|route| route.hosts.iter().any(|other| other == host));
    let whole = route.is_none_or(|route| route.path_prefix.is_empty() || !route.client_ca.is_empty());
    (instance.host_name == host || further) && whole
}

#[cfg(test)]
mod tests {
    use nexushub_proto::provider::Route;

    use super::*;

    #[test]
    fn a_name_is_had_by_who_answers_all_of_it_and_is_no_developers() {
        let with = |origin: Origin, route: Route| {
            let (id, host_name) = ("x".to_owned(), "shop".to_owned());
            let one =
                Instance { id, host_name, origin: origin.into(), route: Some(route), ..Instance::default() };
            ListInstancesResponse { waiting: vec![one], ..ListInstancesResponse::default() }
        };
        let hosts = Route { hosts: vec!["market".to_owned(), "*.shop".to_owned()], ..Route::default() };
        let part = Route { path_prefix: "/reports".to_owned(), ..Route::default() };
        let closed = Route { client_ca: "/ca.crt".to_owned(), ..part.clone() };
        for (origin, route, host, held) in [
            (Origin::Static, Route::default(), "shop", true),
            (Origin::Dynamic, hosts.clone(), "market", true),
            (Origin::Static, hosts, "other.shop", false),
            (Origin::Static, part, "shop", false),
            (Origin::Static, closed, "shop", true),
            (Origin::Static, Route::default(), "other", false),
            (Origin::Debug, Route::default(), "shop", false),
        ] {
            let wanted = with(origin, route);
            assert_eq!(holder(&wanted, host).is_some(), held, "{wanted:?} {host}");
        }
    }
}
