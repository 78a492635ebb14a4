//! static + dynamic + debug -> desired. A pure function of its input: the order of the entries changes nothing, and the same
//! entries give the same result on every machine.
//!
//! Precedence. A dynamic entry overrides the static one of the same id field by field, except what the static one pins; a
//! static instance that the admin app doesn't list stays. A debug entry stands alone: an id of another origin is not its to
//! take. Host names (and wildcards, each with the path below which it is meant) are claimed in this order, the smaller id first
//! among equals:
//!
//! 1. static instances, the names they were configured with
//! 2. names given by dynamic entries, to static instances or to their own
//! 3. a static instance that lost in 2 falls back to its configured name and route, if they are still free
//! 4. debug instances
//!
//! Whoever finds one of its names taken is not desired, and a conflict names both. What is reserved (the instances that people log
//! in at and administer) is the configuration's alone: a dynamic entry of such an id may say how it is shown and nothing else, a
//! debug entry nothing. A dynamic instance whose application has no package yet holds its names, and waits. A name may be held together by those who say
//! that they share their requests, and all who hold a name ask its clients for certificates of the same authority.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    fmt,
    path::PathBuf,
};

use nexushub_chassis::names::InstanceId;

use crate::{
    instance::{Entry, Fields, Instance, Source},
    route,
};

/// Where a desired instance came from. A static one that a dynamic entry overrides is static still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Configuration.
    Static,
    /// The admin app.
    Dynamic,
    /// The debug API or an operator.
    Debug,
}

/// An instance and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// What should run.
    pub instance: Instance,
    /// Whose it is.
    pub origin: Origin,
}

/// What the merge makes of all entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// What should run.
    pub desired: BTreeMap<InstanceId, Desired>,
    /// What would run if its application had a package; its release is empty.
    pub waiting: BTreeMap<InstanceId, Desired>,
    /// Entries that lost, in a fixed order.
    pub conflicts: Vec<Conflict>,
}

/// An entry that lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The instance that lost.
    pub id: InstanceId,
    /// Where its entry was read.
    pub source: Source,
    /// What it lost.
    pub clash: Clash,
}

/// What an entry lost, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    /// Its id is taken by an entry read there.
    Id(Source),
    /// A name that it claims, with the path, is taken by another instance.
    Host(String, InstanceId, Source),
    /// Clients of the name need certificates of another authority there.
    ClientCa(String, InstanceId, Source),
    /// What it says of its route can't be together with what is said below it.
    Route(String),
    /// It says no host name or no release, and nobody else does.
    Incomplete,
    /// Its id is the configuration's alone.
    ReservedId,
    /// This name is the configuration's alone.
    ReservedHost(String),
}

/// What the merge knows besides the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Where data folders lie by default.
    pub data_root: PathBuf,
    /// Ids that only the configuration may give.
    pub reserved_ids: BTreeSet<InstanceId>,
    /// Relative host names that only the configuration may give.
    pub reserved_hosts: BTreeSet<String>,
}

impl Conflict {
    /// The same, wherever the entries stand in their files: of one configuration that lies elsewhere, or has another line above them.
    fn anywhere(&self) -> Self {
        let clash = match &self.clash {
            Clash::Id(holder) => Clash::Id(holder.anywhere()),
            Clash::Host(host, other, holder) => Clash::Host(host.clone(), other.clone(), holder.anywhere()),
            Clash::ClientCa(host, other, holder) => {
                Clash::ClientCa(host.clone(), other.clone(), holder.anywhere())
            }
            Clash::Route(_) | Clash::Incomplete | Clash::ReservedId | Clash::ReservedHost(_) => {
                self.clash.clone()
            }
        };
        Self { id: self.id.clone(), source: self.source.anywhere(), clash }
    }
}

/// Of the conflicts, those that there are not now.
#[must_use]
pub fn further(conflicts: Vec<Conflict>, now: &[Conflict]) -> Vec<Conflict> {
    let mut known: Vec<Conflict> = now.iter().map(Conflict::anywhere).collect();
    let mut is_known = |conflict: &Conflict| {
        let at = known.iter().position(|known| *known == conflict.anywhere());
        at.map(|at| known.swap_remove(at)).is_some() // one stands for one
    };
    conflicts.into_iter().filter(|conflict| !is_known(conflict)).collect()
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, source, clash } = self;
        match clash {
            Clash::Id(holder) => write!(f, "instance id `{id}` ({source}) is taken ({holder})"),
            Clash::Host(host, other, holder) => {
                write!(
                    f,
                    "host name `{host}` of instance `{id}` ({source}) is taken by instance `{other}` ({holder})"
                )
            }
            Clash::ClientCa(host, other, holder) => {
                write!(
                    f,
                    "host name `{host}` of instance `{id}` ({source}) has another client_ca at instance `{other}` ({holder})"
                )
            }
            Clash::Route(why) => {
                write!(
                    f,
                    "the route of instance `{id}` ({source}) can't be laid over what is below it: {why}"
                )
            }
            Clash::Incomplete => write!(f, "instance `{id}` ({source}) has no host name or no release"),
            Clash::ReservedId => {
                write!(f, "instance id `{id}` ({source}) is reserved for an instance of the configuration")
            }
            Clash::ReservedHost(host) => {
                write!(
                    f,
                    "host name `{host}` of instance `{id}` ({source}) is reserved for an instance of the configuration"
                )
            }
        }
    }
}

type ById<'a> = BTreeMap<&'a InstanceId, &'a Entry>;

/// Merges all entries; see the head of this file.
#[must_use]
pub fn merge(statics: &[Entry], dynamic: &[Entry], debug: &[Entry], ground: &Ground) -> Merged {
    let mut table = Table { ground, claimed: BTreeMap::new(), merged: Merged::default() };
    let statics = table.unique(statics);
    let dynamic = table.unique(dynamic);
    let debug = table.unique(debug);
    let dynamic = table.unreserved(dynamic, |id| statics.contains_key(id));
    let debug = table.unreserved(debug, |id| statics.contains_key(id)); // which lose to those below
    let layers = layers(&statics, &dynamic, &ground.reserved_ids);
    for (entry, fields) in &layers.own {
        table.claim(entry, fields, Origin::Static);
    }
    let mut fallbacks = Vec::new();
    for (entry, fields, below) in layers.given {
        let origin = if below.is_some() { Origin::Static } else { Origin::Dynamic };
        if !table.claim(entry, &fields, origin) {
            fallbacks.extend(below.map(|below| (below, fields)));
        }
    }
    for (below, fields) in fallbacks {
        let (host_name, route) = (below.fields.host_name.clone(), below.fields.route.clone());
        let fields = Fields { host_name, route, ..fields };
        table.claim(below, &fields, Origin::Static);
    }
    for (id, entry) in debug {
        match statics.get(id).or_else(|| dynamic.get(id)) {
            Some(holder) => table.lost(entry, Clash::Id(holder.source.clone())),
            None => {
                table.claim(entry, &entry.fields, Origin::Debug);
            }
        }
    }
    table.merged.conflicts.sort();
    table.merged
}

/// Static and dynamic entries laid over each other.
struct Layers<'a> {
    /// Static instances that keep the names of their own entry.
    own: Vec<(&'a Entry, Fields)>,
    /// Names given by a dynamic entry, with the static entry below it, if any.
    given: Vec<(&'a Entry, Fields, Option<&'a Entry>)>,
}

fn layers<'a>(statics: &ById<'a>, dynamic: &ById<'a>, reserved: &BTreeSet<InstanceId>) -> Layers<'a> {
    let mut layers = Layers { own: Vec::new(), given: Vec::new() };
    let ids: BTreeSet<&InstanceId> = statics.keys().chain(dynamic.keys()).copied().collect();
    for id in ids {
        match (statics.get(id).copied(), dynamic.get(id).copied()) {
            (Some(below), Some(upper)) => {
                let shown = Fields { display_name: upper.fields.display_name.clone(), ..Fields::default() };
                let said = if reserved.contains(id) { &shown } else { &upper.fields };
                let fields = said.over(&below.fields, &below.pins);
                if fields.host_name == below.fields.host_name && fields.route == below.fields.route {
                    layers.own.push((below, fields));
                } else {
                    layers.given.push((upper, fields, Some(below)));
                }
            }
            (Some(below), None) => layers.own.push((below, below.fields.clone())),
            (None, Some(upper)) => layers.given.push((upper, upper.fields.clone(), None)),
            (None, None) => {}
        }
    }
    layers
}

/// The result under construction.
struct Table<'a> {
    ground: &'a Ground,
    claimed: BTreeMap<String, Vec<Claim>>,
    merged: Merged,
}

/// Who holds a name, and below which path.
struct Claim {
    id: InstanceId,
    source: Source,
    below: String,
    group: Option<String>,
    client_ca: Option<PathBuf>,
}

impl Claim {
    /// What stands between this one and another of the same name.
    fn clash(&self, host: &str, with: &Self) -> Option<Clash> {
        let (id, source) = (with.id.clone(), with.source.clone());
        if self.client_ca != with.client_ca {
            return Some(Clash::ClientCa(host.to_owned(), id, source));
        }
        let shared = self.group.is_some() && self.group == with.group;
        let taken = self.below == with.below && !shared;
        taken.then(|| Clash::Host(format!("{host}{}", self.below), id, source))
    }
}

impl Table<'_> {
    /// One entry for each id of one origin: the least, so that the order they came in doesn't matter.
    fn unique<'e>(&mut self, entries: &'e [Entry]) -> ById<'e> {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by_key(|entry| (&entry.id, &entry.source, *entry));
        let mut unique = ById::new();
        for entry in sorted {
            match unique.entry(&entry.id) {
                btree_map::Entry::Vacant(free) => {
                    free.insert(entry);
                }
                btree_map::Entry::Occupied(held) => self.lost(entry, Clash::Id(held.get().source.clone())),
            }
        }
        unique
    }

    /// Without those whose id is reserved, unless there is the instance for which it is.
    fn unreserved<'e>(&mut self, mut entries: ById<'e>, there: impl Fn(&InstanceId) -> bool) -> ById<'e> {
        let ground = self.ground;
        let strange = |id: &InstanceId| ground.reserved_ids.contains(id) && !there(id);
        let strangers: Vec<_> = entries.extract_if(.., |id, _| strange(id)).collect();
        for (_, entry) in strangers {
            self.lost(entry, Clash::ReservedId);
        }
        entries
    }

    fn claim(&mut self, entry: &Entry, fields: &Fields, origin: Origin) -> bool {
        let waits = origin == Origin::Dynamic && fields.release.is_none();
        let empty = waits.then(|| Fields { release: Some(PathBuf::new()), ..fields.clone() });
        let Some(instance) = empty.as_ref().unwrap_or(fields).complete(&entry.id, &self.ground.data_root)
        else {
            self.lost(entry, Clash::Incomplete);
            return false;
        };
        if let Some(why) = route::discord(&instance) {
            self.lost(entry, Clash::Route(why));
            return false;
        }
        let (hosts, below) = route::claims(&instance);
        let given = !matches!(entry.source, Source::File(..));
        if let Some(host) = hosts.iter().find(|host| given && self.ground.reserved_hosts.contains(*host)) {
            self.lost(entry, Clash::ReservedHost(host.clone()));
            return false;
        }
        let claim = || Claim {
            id: entry.id.clone(),
            source: entry.source.clone(),
            below: below.clone(),
            group: route::group(&instance).map(str::to_owned),
            client_ca: route::client_ca(&instance),
        };
        let clash = hosts
            .iter()
            .find_map(|host| self.claimed.get(host)?.iter().find_map(|held| claim().clash(host, held)));
        if let Some(clash) = clash {
            self.lost(entry, clash);
            return false;
        }
        for host in hosts {
            self.claimed.entry(host).or_default().push(claim());
        }
        let into = if waits { &mut self.merged.waiting } else { &mut self.merged.desired };
        into.insert(entry.id.clone(), Desired { instance, origin });
        true
    }

    fn lost(&mut self, entry: &Entry, clash: Clash) {
        self.merged.conflicts.push(Conflict { id: entry.id.clone(), source: entry.source.clone(), clash });
    }
}

#[cfg(test)]
mod tests;
