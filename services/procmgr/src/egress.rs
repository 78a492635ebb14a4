//! The way out of a box to the internet, as root: a pair of interfaces, one end of it in the box, and the machine between the two
//! and the world as a router with rules of its own (`egress/rules.rs`).
//!
//! ```text
//! box: eth0, address 4n+2 ──── nh<tag>-n, address 4n+1: the machine ──── interface of the default route
//! ```
//! n is the number of the box's range of user ids (`slots.rs`), the tag that of this platform. Invariants: the rules are in force
//! before there is a way to be ruled, and are put in force again at every start of a box and of procmgr; a pair ends with the
//! box's network, whoever lives; forwarding is switched on for the interfaces concerned alone, and only those that had it off are
//! switched back when the platform stops.

mod host;
mod rules;
mod space;

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nexushub_chassis::launch::{durable, secret};
use nix::net::if_::if_nametoindex;

use crate::slots::SLOTS;
use rules::Rules;

/// What a box calls its end.
const INSIDE: &str = "eth0";
/// The file that is there while the machine routes boxes, and names the interfaces whose forwarding was off.
const LENT: &str = "procmgr/forwarding";

/// The addresses of the boxes of one platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(Ipv4Addr);

impl Network {
    /// Of a pair: the network's own, the machine's, the box's, and the broadcast.
    const PAIR: u32 = 4;
    /// All.
    pub(crate) const ADDRESSES: u32 = SLOTS * Self::PAIR;
    /// Bits that they have in common.
    const PREFIX: u32 = 32 - Self::ADDRESSES.ilog2();

    /// Whether it can begin at an address.
    pub(crate) fn fits(first: Ipv4Addr) -> bool {
        first.to_bits().is_multiple_of(Self::ADDRESSES) && !first.is_unspecified()
    }

    fn holds(self, address: Ipv4Addr) -> bool {
        address.to_bits() / Self::ADDRESSES == self.0.to_bits() / Self::ADDRESSES
    }

    fn at(self, slot: u32, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.to_bits() + (slot % SLOTS) * Self::PAIR + offset)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0, Self::PREFIX)
    }
}

/// Makes ways out.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    network: Network,
    /// Of the platform: two of a machine don't meet by name.
    tag: String,
    lent: PathBuf,
    /// One at a time looks at the machine and changes it.
    turn: Arc<Mutex<()>>,
}

/// Why an ordinary user gets none.
pub(crate) fn needs_root() -> String {
    "needs root: procmgr runs as an ordinary user".into()
}

impl Router {
    /// For the platform of this state folder.
    pub(crate) fn new(state: &Path, first: Ipv4Addr) -> Self {
        let digest = secret::digest(&state.to_string_lossy());
        let tag = secret::hex(&digest[..2]);
        Self { network: Network(first), tag, lent: state.join(LENT), turn: Arc::default() }
    }

    /// Where a box finds its way out.
    pub(crate) fn gateway(&self, slot: u32) -> Ipv4Addr {
        self.network.at(slot, 1)
    }

    /// Whether boxes can have ways out, or why not: one is made for a trial, apart from everything. Ways that an earlier procmgr
    /// made have their rules put in force again.
    pub(crate) async fn find(router: Option<Self>) -> Result<(), String> {
        let router = router.ok_or_else(needs_root)?;
        let tried = tokio::task::spawn_blocking(move || {
            router.try_apart()?;
            let _alone = router.alone();
            let used = router.addresses()?.iter().any(|(name, _)| name.starts_with(&router.links()));
            if used { router.rule() } else { Ok(()) }
        });
        let tried = tried.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        tried.map_err(|error| format!("can't be had here: {error}"))
    }

    /// Makes the way out of the box whose network this process is in. What is left of an earlier box's is replaced. Blocks.
    pub(crate) fn attach(&self, slot: u32, pid: u32) -> Result<(), String> {
        let _alone = self.alone();
        let made = self.rule().and_then(|()| {
            let inside = File::open(format!("/proc/{pid}/ns/net"))?;
            self.connect(slot, &inside)
        });
        made.map_err(|error| format!("its way out to the internet: {error}"))
    }

    /// Leaves the machine as it was, once no box is left.
    pub(crate) fn leave(&self) {
        let _alone = self.alone();
        if !self.lent.exists() {
            return; // no box ever had a way out
        }
        let lent = if host::routes() { Vec::new() } else { self.read_lent() };
        let off = lent.iter().try_for_each(|name| host::forward(name, false));
        let left = off.and_then(|()| space::run("nft", &["-f", "-"], self.rules().removal().as_bytes()));
        match left {
            Ok(()) => drop(fs::remove_file(&self.lent)),
            Err(error) => {
                tracing::warn!(error = %error, "could not take back what routed boxes to the internet");
            }
        }
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the names of the machine's ends begin.
    fn links(&self) -> String {
        format!("nh{}-", self.tag)
    }

    /// The rules of a machine that leads nowhere.
    fn rules(&self) -> Rules {
        Rules {
            table: format!("nexushub_{}", self.tag),
            links: self.links(),
            network: self.network,
            uplinks: Vec::new(),
            guarded: Vec::new(),
            resolver: None,
        }
    }

    /// Puts the rules in force for the machine as it is now, and only then has it forward.
    fn rule(&self) -> io::Result<()> {
        let (own, uplinks) = (self.addresses()?, host::uplinks()?);
        let mut lent = self.read_lent();
        lent.extend(uplinks.iter().filter(|uplink| !host::forwards(uplink)).cloned());
        lent.sort();
        lent.dedup();
        durable::write(&self.lent, lent.join("\n").as_bytes(), 0o600)?;
        // Of a router the operator decides what it forwards.
        let guarded = if host::routes() { Vec::new() } else { lent.clone() };
        let resolver = host::resolver(&own);
        self.put_rules(&Rules { uplinks, guarded, resolver, ..self.rules() })?;
        lent.iter().try_for_each(|uplink| host::forward(uplink, true))
    }

    fn put_rules(&self, rules: &Rules) -> io::Result<()> {
        space::run("nft", &["-f", "-"], rules.text().as_bytes())
    }

    /// The machine's addresses, if none of another interface is among those of the boxes.
    fn addresses(&self) -> io::Result<Vec<(String, Ipv4Addr)>> {
        let all = host::addresses()?;
        let strange =
            |(name, at): &&(String, Ipv4Addr)| self.network.holds(*at) && !name.starts_with(&self.links());
        match all.iter().find(strange) {
            None => Ok(all),
            Some((name, at)) => {
                let network = self.network;
                let why = format!("{at} of {name} is in {network}, set egress_first in [procmgr] to others");
                Err(io::Error::new(io::ErrorKind::AddrInUse, why))
            }
        }
    }

    fn read_lent(&self) -> Vec<String> {
        fs::read_to_string(&self.lent).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn connect(&self, slot: u32, inside: &File) -> io::Result<()> {
        let (own, theirs) = (fs::metadata("/proc/thread-self/ns/net")?, inside.metadata()?);
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(io::Error::other("the box is in the machine's own network"));
        }
        let link = format!("{}{slot}", self.links());
        if if_nametoindex(link.as_str()).is_ok() {
            // Fails when it goes by itself just then.
            let _ = space::run("ip", &["link", "delete", &link], b"");
        }
        // The network is the tool's standard input: a path with the number of a process could mean another's meanwhile.
        let pair = ["link", "add", &link, "type", "veth", "peer", "name", INSIDE, "netns", "/proc/self/fd/0"];
        space::run_with("ip", &pair, inside)?;
        host::no_ipv6(&link)?;
        host::forward(&link, true)?;
        let (gateway, address) = (self.gateway(slot), self.network.at(slot, 2));
        let text = format!("address add {gateway}/30 dev {link}\nlink set {link} up\n");
        space::run("ip", &["-batch", "-"], text.as_bytes())?;
        space::within(inside, || {
            host::no_ipv6(INSIDE)?;
            // The route last: it is what a box waits for.
            let text = format!(
                "address add {address}/30 dev {INSIDE}\nlink set {INSIDE} up\nroute add default via {gateway}\n"
            );
            space::run("ip", &["-batch", "-"], text.as_bytes())
        })
    }

    /// Makes a way out between two networks of nobody's, which are gone afterwards.
    fn try_apart(&self) -> io::Result<()> {
        space::apart(|| {
            self.put_rules(&self.rules())?;
            let inside = space::apart(|| File::open("/proc/thread-self/ns/net"))?;
            self.connect(0, &inside)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 0);

    #[test]
    fn each_box_has_four_addresses_of_its_own_and_all_are_the_platforms() {
        let network = Network(FIRST);
        assert_eq!(network.to_string(), "198.18.64.0/18");
        assert_eq!(network.at(0, 1), Ipv4Addr::new(198, 18, 64, 1));
        assert_eq!(network.at(1, 2), Ipv4Addr::new(198, 18, 64, 6));
        assert_eq!(network.at(SLOTS - 1, 3), Ipv4Addr::new(198, 18, 127, 255));
        assert!((0..SLOTS).all(|slot| network.holds(network.at(slot, 1))));
        assert!(
            !network.holds(Ipv4Addr::new(198, 18, 128, 0)) && !network.holds(Ipv4Addr::new(198, 18, 63, 255))
        );
        assert!(Network::fits(FIRST));
        assert!(!Network::fits(Ipv4Addr::new(198, 18, 32, 0)) && !Network::fits(Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn two_platforms_of_a_machine_have_interfaces_of_their_own_whose_names_the_kernel_takes() {
        let [one, two] = ["/var/lib/one", "/var/lib/two"].map(|state| Router::new(Path::new(state), FIRST));
        assert_ne!(one.links(), two.links());
        let longest = format!("{}{}", one.links(), SLOTS - 1);
        assert!(longest.len() < 16, "{longest}");
    }

    #[test]
    fn who_shares_the_machines_network_gets_no_way_out() {
        let router = Router::new(Path::new("/nonexistent"), FIRST);
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        let refused = router.connect(0, &own).unwrap_err().to_string();
        assert!(refused.contains("the machine's own network"), "{refused}");
    }

    #[tokio::test]
    async fn an_ordinary_user_is_told_that_it_takes_root() {
        assert!(Router::find(None).await.unwrap_err().contains("needs root"));
    }
}
