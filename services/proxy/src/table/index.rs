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
    /// Clients of some name need certificates.
    pub(super) guarded: bool,
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
        let guarded = routes.clone().any(|route| route.entry.rules.client_ca.is_some());
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
        let mut index = Self { guarded, ..Self::default() };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pool::Limits,
        rules::Rules,
        table::{Change, Entry, Table, tests::running},
    };

    fn with(id: &str, host: &str, further: &[&str], prefix: &str) -> Entry {
        let hosts = further.iter().map(|host| (*host).to_owned()).collect();
        let client_ca = id.starts_with("ca").then(|| id.into());
        Entry {
            rules: Rules { hosts, prefix: prefix.into(), client_ca, ..Rules::default() },
            ..running(id, host, 1)
        }
    }

    fn table(entries: Vec<Entry>) -> Table {
        Table::empty(Limits::default()).apply(Change::Snapshot { entries, reconciled: true })
    }

    fn of<'a>(table: &'a Table, host: &str, path: &str) -> Option<&'a str> {
        table.find(host, path).map(|group| group.first().entry.id.as_str())
    }

    #[test]
    fn a_name_as_it_is_goes_before_a_wildcard_and_the_longest_wildcard_before_the_others() {
        let table = table(vec![
            with("all", "all", &["*"], ""),
            with("shop", "shop", &["*.shop"], ""),
            with("eu", "eu", &["*.eu.shop", "www.shop"], ""),
        ]);
        for (host, id) in [
            ("shop", "shop"),
            ("a.shop", "shop"),
            ("a.b.shop", "shop"),
            ("www.shop", "eu"),
            ("eu.shop", "shop"),
            ("x.eu.shop", "eu"),
            ("nobody", "all"),
            ("ashop", "all"),
            ("a.all", "all"),
        ] {
            assert_eq!(of(&table, host, "/"), Some(id), "{host}");
        }
        assert_eq!(of(&table, "", "/"), None, "the base domain itself is nobody's");
    }

    #[test]
    fn of_one_name_the_longest_path_wins_and_what_it_has_no_path_for_goes_to_the_next_wildcard() {
        let table = table(vec![
            with("root", "a", &[], ""),
            with("api", "a", &[], "/api"),
            with("v2", "a", &[], "/api/v2"),
            with("only", "b.c", &[], "/only"),
            with("rest", "rest", &["*.c"], ""),
        ]);
        for (host, path, id) in [
            ("a", "/", Some("root")),
            ("a", "/apis", Some("root")),
            ("a", "/api", Some("api")),
            ("a", "/api/v22", Some("api")),
            ("a", "/api/v2/x", Some("v2")),
            ("b.c", "/only/x", Some("only")),
            ("b.c", "/other", Some("rest")),
            ("b", "/only", None),
        ] {
            assert_eq!(of(&table, host, path), id, "{host}{path}");
        }
    }

    #[test]
    fn the_certificates_that_clients_need_are_those_of_the_first_name_that_fits() {
        let table = table(vec![
            with("ca", "shop", &["*.shop"], ""),
            with("open", "open.shop", &[], ""),
            with("ca2", "open", &[], "/x"),
        ]);
        let ca = |host: &str| table.client_ca(host).map(Path::to_path_buf);
        assert_eq!(ca("shop"), Some("ca".into()));
        assert_eq!(ca("any.shop"), Some("ca".into()));
        assert_eq!((ca("open.shop"), ca("open"), ca("x")), (None, Some("ca2".into()), None));
    }
}
