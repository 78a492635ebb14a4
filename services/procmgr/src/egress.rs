//! The way out of a box to the internet, as root: a pair of interfaces, one end of it in the box, and the machine between the two
//! and the world as a router with rules of its own (`egress/rules.rs`).
//!
//! ```text
//! box: eth0, address 4n+2 ──── nh<tag>-n, address 4n+1: the machine ──── interface of the default route
//! ```
//! A microVM's program makes the link itself: a tap, whose other end is the guest's device. It is taken out of the box's network, so
//! that it is to the machine as every other.
//!
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
    time::{Duration, Instant},
};

use nexushub_chassis::launch::{durable, secret};
use nix::net::if_::if_nametoindex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{process, slots::SLOTS};
use rules::Rules;

/// Bits that the addresses of a pair have in common.
const PAIR_PREFIX: u32 = 30;
/// What a box calls its end.
const INSIDE: &str = "eth0";
/// Longest wait for the link of a microVM's program, which makes it first of all.
const PATIENCE: Duration = Duration::from_secs(30);
/// The file that is there while the machine routes boxes, and names the interfaces whose forwarding was off.
const LENT: &str = "procmgr/forwarding";

/// The addresses of the boxes of one platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(Ipv4Addr);

impl Network {
    /// Of a pair: the network's own, the machine's, the box's, and the broadcast.
    const PAIR: u32 = 1 << (32 - PAIR_PREFIX);
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

/// A box's end of its way out, as who is in there is told: `198.18.0.2/30 198.18.0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    /// The box's own address.
    pub address: Ipv4Addr,
    /// The machine's: where it leads on, and names are asked for.
    pub gateway: Ipv4Addr,
}

impl std::fmt::Display for WayOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.address, PAIR_PREFIX, self.gateway)
    }
}

/// Which boxes can have ways out here, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sandboxes.
    pub boxes: Result<(), String>,
    /// MicroVMs.
    pub machines: Result<(), String>,
}

/// Why an ordinary user gets none: what could be had without root, a network in user space, would reach the machine's own addresses.
pub(crate) fn needs_root() -> String {
    "needs root: procmgr runs as an ordinary user, who can't keep a box from the machine's own addresses"
        .into()
}

impl Router {
    /// For the platform of this state folder.
    pub(crate) fn new(state: &Path, first: Ipv4Addr) -> Self {
        let digest = secret::digest(&state.to_string_lossy());
        let tag = secret::hex(&digest[..2]);
        Self { network: Network(first), tag, lent: state.join(LENT), turn: Arc::default() }
    }

    /// What a box is told of its way out.
    pub(crate) fn way_out(&self, slot: u32) -> WayOut {
        WayOut { address: self.network.at(slot, 2), gateway: self.network.at(slot, 1) }
    }

    /// Which boxes can have ways out: of each kind one is made for a trial, apart from everything. Ways that an earlier procmgr
    /// made have their rules put in force again.
    pub(crate) async fn find(router: Option<Self>) -> Found {
        let Some(router) = router else {
            return Found { boxes: Err(needs_root()), machines: Err(needs_root()) };
        };
        let tried = tokio::task::spawn_blocking(move || {
            let boxes = router.try_apart().and_then(|()| {
                let _alone = router.alone();
                let used = router.addresses()?.iter().any(|(name, _)| name.starts_with(&router.links()));
                if used { router.rule() } else { Ok(()) }
            });
            let boxes = boxes.map_err(|error| format!("can't be had here: {error}"));
            let machines =
                || router.try_tap().map_err(|error| format!("can't be had in a microVM here: {error}"));
            Found { machines: boxes.clone().and_then(|()| machines()), boxes }
        });
        tried.await.unwrap_or_else(|error| {
            let lost = format!("can't be had here: {error}");
            Found { boxes: Err(lost.clone()), machines: Err(lost) }
        })
    }

    /// Makes the way out of the box whose network this process is in; `machine`: of the link that is made in there. What is left of
    /// an earlier box's is replaced. Blocks.
    pub(crate) fn attach(&self, slot: u32, pid: u32, machine: bool) -> Result<(), String> {
        let made = File::open(format!("/proc/{pid}/ns/net")).and_then(|inside| {
            if machine && !await_link(&inside, pid)? {
                return Ok(()); // it has ended, and says itself why
            }
            let _alone = self.alone();
            self.rule()?;
            if machine { self.take_over(slot, &inside) } else { self.connect(slot, &inside) }
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
        let link = self.free_link(slot, inside)?;
        // The network is the tool's standard input: a path with the number of a process could mean another's meanwhile.
        let pair = ["link", "add", &link, "type", "veth", "peer", "name", INSIDE, "netns", "/proc/self/fd/0"];
        space::run_with("ip", &pair, inside)?;
        self.open(slot, &link)?;
        let WayOut { address, gateway } = self.way_out(slot);
        space::within(inside, || {
            host::no_ipv6(INSIDE)?;
            // The route last: it is what a box waits for.
            let text = format!(
                "address add {address}/{PAIR_PREFIX} dev {INSIDE}\nlink set {INSIDE} up\nroute add default via {gateway}\n"
            );
            space::run("ip", &["-batch", "-"], text.as_bytes())
        })
    }

    /// Takes the link that is in a box's network out of it.
    fn take_over(&self, slot: u32, inside: &File) -> io::Result<()> {
        let link = self.free_link(slot, inside)?;
        let own = File::open("/proc/thread-self/ns/net")?;
        let moved = ["link", "set", INSIDE, "netns", "/proc/self/fd/0", "name", &link];
        space::within(inside, || space::run_with("ip", &moved, &own))?;
        self.open(slot, &link)
    }

    /// The name of the machine's end, which nobody has any more.
    fn free_link(&self, slot: u32, inside: &File) -> io::Result<String> {
        let (own, theirs) = (fs::metadata("/proc/thread-self/ns/net")?, inside.metadata()?);
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Err(io::Error::other("the box is in the machine's own network"));
        }
        let link = format!("{}{slot}", self.links());
        if if_nametoindex(link.as_str()).is_ok() {
            // Fails when it goes by itself just then.
            let _ = space::run("ip", &["link", "delete", &link], b"");
        }
        Ok(link)
    }

    /// Puts the machine's end into service. That it is up comes last: it is what a microVM waits for.
    fn open(&self, slot: u32, link: &str) -> io::Result<()> {
        host::no_ipv6(link)?;
        host::own_addresses_only(link)?;
        host::forward(link, true)?;
        let gateway = self.way_out(slot).gateway;
        let text = format!("address add {gateway}/{PAIR_PREFIX} dev {link}\nlink set {link} up\n");
        space::run("ip", &["-batch", "-"], text.as_bytes())
    }

    /// Makes a way out between two networks of nobody's, which are gone afterwards.
    fn try_apart(&self) -> io::Result<()> {
        space::apart(|| {
            self.put_rules(&self.rules())?;
            let inside = space::apart(|| File::open("/proc/thread-self/ns/net"))?;
            self.connect(0, &inside)
        })
    }

    /// The same with the link of a microVM.
    fn try_tap(&self) -> io::Result<()> {
        space::apart(|| {
            let inside = space::apart(|| {
                space::run("ip", &["tuntap", "add", INSIDE, "mode", "tap"], b"")?;
                File::open("/proc/thread-self/ns/net")
            })?;
            self.take_over(0, &inside)
        })
    }
}

/// Waits for the link of a box's own, as long as there is the box; says whether there is one.
fn await_link(inside: &File, pid: u32) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let program = process::hold(pid)?;
    space::within(inside, || {
        let news = space::link_news()?; // from before the first look on
        while if_nametoindex(INSIDE).is_err() {
            let Some(program) = &program else { return Ok(false) };
            let left = deadline.saturating_duration_since(Instant::now());
            let mut waited = [PollFd::new(&news, PollFlags::IN), PollFd::new(program, PollFlags::IN)];
            match poll(&mut waited, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "its program made no link")),
                Ok(_) if !waited[1].revents().is_empty() => return Ok(false), // it has ended
                Ok(_) => space::forget(&news),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    })
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
        let Found { boxes, machines } = Router::find(None).await;
        assert!(
            [boxes, machines].iter().all(|found| found.as_ref().is_err_and(|why| why.contains("needs root")))
        );
    }

    #[test]
    fn a_box_is_told_its_address_and_where_its_way_leads() {
        let router = Router::new(Path::new("/nonexistent"), FIRST);
        assert_eq!(router.way_out(1).to_string(), "198.18.64.6/30 198.18.64.5");
    }

    /// It takes root, and a kernel with taps, which CI has.
    fn not_tried(why: &io::Error) {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        println!("not tried: {why}");
    }

    #[test]
    fn of_a_box_that_has_ended_no_link_is_awaited() {
        let inside = match space::apart(|| File::open("/proc/thread-self/ns/net")) {
            Ok(inside) => inside,
            Err(error) => return not_tried(&error),
        };
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        assert!(!await_link(&inside, ended.id()).unwrap());
        let link = ["link", "add", INSIDE, "type", "veth", "peer", "name", "other"];
        space::within(&inside, || space::run("ip", &link, b"")).unwrap();
        assert!(await_link(&inside, ended.id()).unwrap());
    }

    #[test]
    fn a_link_is_seen_when_it_comes_and_so_is_the_end_of_who_was_to_make_it() {
        let network = || space::apart(|| File::open("/proc/thread-self/ns/net"));
        let (one, other) = match (network(), network()) {
            (Ok(one), Ok(other)) => (one, other),
            (Err(error), _) | (_, Err(error)) => return not_tried(&error),
        };
        let mut program =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = program.id();
        std::thread::scope(|scope| {
            let (comes, ends) =
                (scope.spawn(|| await_link(&one, pid)), scope.spawn(|| await_link(&other, pid)));
            let tap = ["tuntap", "add", INSIDE, "mode", "tap"];
            space::within(&one, || space::run("ip", &tap, b"")).unwrap();
            assert!(comes.join().unwrap().unwrap());
            drop(program.stdin.take());
            assert!(!ends.join().unwrap().unwrap());
        });
        program.wait().unwrap();
    }

    #[test]
    fn the_link_of_a_microvm_becomes_the_machines_with_its_address() {
        let router = Router::new(Path::new("/nonexistent"), FIRST);
        let made = space::apart(|| {
            space::run("ip", &["tuntap", "add", INSIDE, "mode", "tap"], b"")?;
            File::open("/proc/thread-self/ns/net")
        });
        let inside = match made {
            Ok(inside) => inside,
            Err(error) => return not_tried(&error),
        };
        let own = space::apart(|| router.take_over(3, &inside).and_then(|()| host::addresses())).unwrap();
        assert_eq!(own, [(format!("{}3", router.links()), router.way_out(3).gateway)]);
    }
}
