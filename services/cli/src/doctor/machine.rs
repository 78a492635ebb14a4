//! What of the machine itself is in the way of a platform, or soon will be: kernel, ports, certificates, clock, disk, units. What is
//! read and what is made of it are apart, so that every verdict is tested.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use nexushub_launch::config::Platform;
use nix::sys::statvfs::statvfs;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Finding;
use crate::{
    args::DAEMONS,
    failure::Failure,
    place::{Place, reachable},
    settings, systemd,
    table::bytes,
};

/// The least kernel: pidfds that are waited for, and openat2.
const KERNEL: (u32, u32) = (5, 10);
/// From here on there is Landlock, the second fence around a box.
const LANDLOCK: (u32, u32) = (5, 13);
/// Free space that is little, and that is too little.
const LITTLE: u64 = 1 << 30;
const TOO_LITTLE: u64 = 100 << 20;
/// A certificate that ends within this time is worth a word.
const SOON_S: i64 = 14 * 86_400;
const CONNECT: Duration = Duration::from_secs(2);

/// Everything that is looked at.
pub(super) fn findings(place: &Place) -> Vec<Finding> {
    let now = i64::try_from(unix_s()).unwrap_or(i64::MAX);
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease")), kvm()];
    match place.platform() {
        Ok(platform) => {
            findings.extend([listener(place, &platform), certificate(place, &platform, now)]);
            findings.push(ports(place));
        }
        Err(failure) => findings.push(Finding::bad("configuration", failure.message, &failure.hint)),
    }
    findings.extend([clock(synchronized().as_deref()), disk(&place.state)]);
    findings.extend(units(place));
    findings
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        old if old < KERNEL => {
            Finding::bad("kernel", format!("Linux {release}"), "5.10 or a newer one is needed")
        }
        old if old < LANDLOCK => Finding::note(
            "kernel",
            format!("Linux {release} has no Landlock"),
            "5.13 or a newer one adds a second fence around boxes",
        ),
        _ => Finding::ok("kernel", format!("Linux {release}")),
    }
}

fn kvm() -> Finding {
    let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(_) => Finding::ok("KVM", "/dev/kvm can be opened"),
        Err(error) => {
            Finding::note("KVM", format!("/dev/kvm: {error}"), "without it apps run in the sandbox")
        }
    }
}

/// Whether the front door is open, and to whom it belongs.
fn listener(place: &Place, platform: &Platform) -> Finding {
    let at = reachable(platform.listen);
    let up = place.token("proxy").is_ok();
    judge_listener(at, up, TcpStream::connect_timeout(&at, CONNECT).is_ok())
}

fn judge_listener(at: SocketAddr, up: bool, answers: bool) -> Finding {
    match (up, answers) {
        (true, true) => Finding::ok("HTTPS", format!("{at} takes connections")),
        (true, false) => {
            Finding::bad("HTTPS", format!("{at} takes no connections"), "see nexushub logs proxy")
        }
        (false, true) => Finding::bad(
            "HTTPS",
            format!("somebody else listens at {at}"),
            "stop it (ss -ltnp shows who it is), or set platform.listen",
        ),
        (false, false) => {
            Finding::note("HTTPS", format!("nobody listens at {at}"), "start the platform: nexushub up")
        }
    }
}

/// The certificate that is shown to everybody.
fn certificate(place: &Place, platform: &Platform, now: i64) -> Finding {
    /// The one key that matters here; the rest is the proxy's to judge.
    #[derive(Deserialize)]
    struct Table {
        certificate: PathBuf,
    }
    let path = || -> Result<PathBuf, Failure> {
        let config = place.config()?;
        Ok(config.resolve(&settings::held::<Table>(&config, "proxy")?.certificate))
    };
    let path = match path() {
        Ok(path) => path,
        Err(failure) => return Finding::bad("certificate", failure.message, &failure.hint),
    };
    let next = "make one: nexushub certs; or put your own there";
    match CertificateDer::from_pem_file(&path) {
        Ok(der) => judge_certificate(&der, &platform.base_domain, now),
        Err(error) => Finding::bad("certificate", format!("{}: {error}", path.display()), next),
    }
}

fn judge_certificate(der: &[u8], domain: &str, now: i64) -> Finding {
    let next = "renew it: nexushub certs for a development one; the proxy takes up a new file by itself";
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Finding::bad("certificate", "it is none that can be read", next);
    };
    let (from, until) =
        (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let names: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    let covers = names.iter().any(|name| name.contains(&format!("*.{domain}")));
    let days = (until - now) / 86_400;
    match () {
        () if now < from => {
            Finding::bad("certificate", "it is not valid yet", "is the clock right? see below")
        }
        () if now > until => Finding::bad("certificate", "it has expired", next),
        () if !covers => Finding::note(
            "certificate",
            format!("it does not cover *.{domain}"),
            "apps answer at names below it",
        ),
        () if until - now < SOON_S => {
            Finding::note("certificate", format!("it expires in {days} days"), next)
        }
        () => Finding::ok("certificate", format!("covers *.{domain}, for {days} more days")),
    }
}

/// Whether the ports that apps get are others' too.
fn ports(place: &Place) -> Finding {
    /// The keys that matter here; the rest is procmgr's to judge.
    #[derive(Deserialize)]
    struct Table {
        port_first: u16,
        port_last: u16,
    }
    match place.config().and_then(|config| settings::held::<Table>(&config, "procmgr")) {
        Ok(table) => {
            judge_ports((table.port_first, table.port_last), &read("/proc/sys/net/ipv4/ip_local_port_range"))
        }
        Err(failure) => Finding::bad("ports", failure.message, &failure.hint),
    }
}

fn judge_ports((first, last): (u16, u16), ephemeral: &str) -> Finding {
    let range: Vec<u16> = ephemeral.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let says = format!("{first} to {last} for apps");
    match range[..] {
        [low, high] if low <= last && first <= high => Finding::note(
            "ports",
            format!(
                "{says}, of which the kernel gives {} to {} to anybody's connections",
                low.max(first),
                high.min(last)
            ),
            "set procmgr.port_first and port_last, or net.ipv4.ip_local_port_range, so that they don't meet",
        ),
        _ => Finding::ok("ports", says),
    }
}

/// What systemd knows of the clock; none where there is no systemd.
fn synchronized() -> Option<String> {
    let output =
        Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn clock(synchronized: Option<&str>) -> Finding {
    match synchronized {
        Some("yes") => Finding::ok("clock", "is synchronized"),
        Some(_) => Finding::note(
            "clock",
            "is not synchronized",
            "certificates and sessions go by it: timedatectl set-ntp true",
        ),
        None => Finding::ok("clock", "nobody here says whether it is synchronized"),
    }
}

fn disk(state: &Path) -> Finding {
    let there = state.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Ok(disk) => {
            let free = disk.blocks_available() * disk.fragment_size();
            judge_disk(there, free, (disk.files_available(), disk.files()))
        }
        Err(error) => Finding::note("disk", format!("{}: {error}", there.display()), ""),
    }
}

fn judge_disk(folder: &Path, free: u64, (inodes, of): (u64, u64)) -> Finding {
    let says = format!("{} free at {}", bytes(free), folder.display());
    let next = "free some space: packages, logs and data of apps lie there";
    match () {
        () if free < TOO_LITTLE => Finding::bad("disk", says, next),
        () if free < LITTLE => Finding::note("disk", says, next),
        // Some file systems count no inodes.
        () if of > 0 && inodes < of / 100 => {
            Finding::note("disk", format!("{says}, but files for {inodes} more only"), next)
        }
        () => Finding::ok("disk", says),
    }
}

/// The units of a platform that systemd runs.
fn units(place: &Place) -> Vec<Finding> {
    if systemd::active_form(place) != Some(systemd::Form::Units) {
        return Vec::new();
    }
    let unit = |daemon: &str| systemd::unit(daemon).map(|unit| judge_unit(daemon, &unit));
    DAEMONS.iter().filter_map(|daemon| unit(daemon)).collect()
}

fn judge_unit(daemon: &str, unit: &systemd::Unit) -> Finding {
    let what = format!("unit nexushub-{daemon}");
    match unit.active.as_str() {
        "active" | "activating" | "reloading" => Finding::ok(what, unit.active.clone()),
        other => Finding::bad(
            what,
            format!("{other}: {}", unit.result),
            &format!("see journalctl -u nexushub-{daemon}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_kernel_is_judged_by_its_number() {
        let verdict = |release| kernel(release).verdict;
        assert_eq!(verdict("6.1.0-18-amd64"), Verdict::Ok);
        assert_eq!(verdict("5.10.0"), Verdict::Note);
        assert_eq!(verdict("4.19.1"), Verdict::Bad);
        assert_eq!(verdict(""), Verdict::Bad);
    }

    #[test]
    fn a_listener_of_somebody_else_is_in_the_way() {
        let at: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        let verdict = |up, answers| judge_listener(at, up, answers).verdict;
        assert_eq!((verdict(true, true), verdict(true, false)), (Verdict::Ok, Verdict::Bad));
        assert_eq!((verdict(false, true), verdict(false, false)), (Verdict::Bad, Verdict::Note));
    }

    #[test]
    fn a_certificate_is_judged_by_its_time_and_its_names() {
        let made = rcgen::generate_simple_self_signed(vec!["*.b.localhost".to_owned()]).unwrap();
        let der = made.cert.der();
        let now = i64::try_from(unix_s()).unwrap();
        assert_eq!(judge_certificate(der, "b.localhost", now).verdict, Verdict::Ok);
        assert!(judge_certificate(der, "c.localhost", now).says.contains("*.c.localhost"));
        assert_eq!(judge_certificate(der, "b.localhost", 0).says, "it is not valid yet");
        let end = X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
        assert_eq!(judge_certificate(der, "b.localhost", end - 86_400).verdict, Verdict::Note);
        assert_eq!(judge_certificate(der, "b.localhost", end + 1).says, "it has expired");
        assert_eq!(judge_certificate(b"none", "b.localhost", now).verdict, Verdict::Bad);
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_said() {
        assert_eq!(judge_ports((10_000, 19_999), "32768\t60999").verdict, Verdict::Ok);
        let meets = judge_ports((10_000, 19_999), "15000\t60999");
        assert!(meets.verdict == Verdict::Note && meets.says.contains("15000 to 19999"), "{}", meets.says);
        assert_eq!(judge_ports((10_000, 19_999), "").verdict, Verdict::Ok);
    }

    #[test]
    fn a_full_disk_is_said_before_it_is_full() {
        let verdict = |free, inodes| judge_disk(Path::new("/"), free, (inodes, 1000)).verdict;
        assert_eq!((verdict(LITTLE, 1000), verdict(LITTLE - 1, 1000)), (Verdict::Ok, Verdict::Note));
        assert_eq!((verdict(TOO_LITTLE - 1, 1000), verdict(LITTLE, 9)), (Verdict::Bad, Verdict::Note));
        assert_eq!(judge_disk(Path::new("/"), LITTLE, (0, 0)).verdict, Verdict::Ok);
        assert_eq!(disk(Path::new("/nowhere/at/all")).what, "disk", "the nearest folder counts");
    }

    #[test]
    fn a_clock_and_a_unit_that_are_not_well_are_said() {
        assert_eq!((clock(Some("yes")).verdict, clock(None).verdict), (Verdict::Ok, Verdict::Ok));
        assert_eq!(clock(Some("no")).verdict, Verdict::Note);
        let unit = |active: &str| systemd::Unit { active: active.into(), ..Default::default() };
        assert_eq!(judge_unit("proxy", &unit("active")).verdict, Verdict::Ok);
        assert_eq!(judge_unit("proxy", &unit("failed")).verdict, Verdict::Bad);
    }
}
