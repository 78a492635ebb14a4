//! From a host name and a path to who gets the request. A name as it is goes before a wildcard, a longer wildcard before a
//! shorter one, and of what one name has the longest path; what a name has no path for, the next wildcard may have.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{Route, group::Group};

/// What stands for one or more labels.
const ANY: &str = "*";

/// All host names.
#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<String, Name>,
    /// By what follows the `*.`; of `*` alone nothing does.
    wild: HashMap<String, Name>,
}

/// What one name has.
#[derive(Debug)]
struct Name {
    /// The longest path first.
    paths: Vec<Group>,
}

impl Index {
    /// Of all these.
    pub(super) fn new<'a>(routes: impl Iterator<Item = &'a Arc<Route>> + Clone) -> Self {
        let mut claims: HashMap<&str, Vec<&Arc<Route>>> = HashMap::new();
        for route in routes {
            let rules = &route.entry.rules;
            for host in rules.hosts.iter().chain([&route.entry.host]) {
                let claimants = claims.entry(host.as_str()).or_default();
                if !claimants.last().is_some_and(|last| Arc::ptr_eq(last, route)) {
                    claimants.push(route);
                }
            }
        }
        let mut index = Self::default();
        for (host, claimants) in claims {
            let name = Name::new(claimants);
            match host.strip_prefix("*.").or((host == ANY).then_some("")) {
                Some(parent) => index.wild.insert(parent.to_owned(), name),
                None => index.exact.insert(host.to_owned(), name),
            };
        }
        index
    }

    /// Who gets a request for this path of a host name, relative and lower case.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Group> {
        self.names(host).find_map(|name| name.paths.iter().find(|group| group.first().entry.rules.fits(path)))
    }

    /// Who issues the certificates that clients of a host name need.
    pub(super) fn client_ca(&self, host: &str) -> Option<&Path> {
        self.names(host).next()?.paths.iter().find_map(|group| group.first().entry.rules.client_ca.as_deref())
    }

    fn names(&self, host: &str) -> impl Iterator<Item = &Name> {
        let parents = std::iter::successors(Some(host), |host| match host.split_once('.') {
            Some((_, parent)) => Some(parent),
            None if host.is_empty() => None,
            None => Some(""),
        });
        let parents = parents.skip(1).filter(|_| !self.wild.is_empty() && !host.is_empty());
        self.exact.get(host).into_iter().chain(parents.filter_map(|parent| self.wild.get(parent)))
    }
}

fn prefix(route: &Arc<Route>) -> &str {
    &route.entry.rules.prefix
}

impl Name {
    fn new(mut claimants: Vec<&Arc<Route>>) -> Self {
        claimants.sort_by(|a, b| {
            let longer = prefix(b).len().cmp(&prefix(a).len());
            longer.then_with(|| prefix(a).cmp(prefix(b))).then_with(|| b.rank().cmp(&a.rank()))
        });
        let groups = claimants.chunk_by(|a, b| prefix(a) == prefix(b)).filter_map(Group::new);
        Self { paths: groups.collect() }
    }
}
