//! An app in a microVM that asks for the internet has it by the same way, and the same rules, as one in a sandbox; who doesn't ask
//! gets nothing. Either way the machine's own process has no network.

use std::{fs, net::TcpListener};

use nexushub_e2e::{
    App, Platform,
    world::{self, INTERNET, admin, links},
};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Egress, Instance},
};

use crate::microvms::{SMALL, machine, next, platform, vmm};

async fn reaching_out(platform: &Platform, name: &str, driver: Driver) -> InstanceStatus {
    let instance = platform.instance(&App::named(name).within(driver));
    let instance = Instance { egress: Egress::Internet.into(), limits: Some(SMALL), ..instance };
    platform.put(instance).await.unwrap();
    platform.running(name).await
}

fn knock(address: &str, port: u16) -> String {
    format!("nc -w 5 {address} {port} </dev/null")
}

async fn is_refused(platform: &Platform, name: &str, address: &str, port: u16) {
    let (well, said) = platform.sh(name, &knock(address, port)).await;
    assert!(!well, "{name} at {address}:{port}: {said}");
}

/// The interfaces of a process's network.
fn interfaces(pid: u32) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

#[test]
fn a_microvm_reaches_the_internet_and_its_names_but_not_its_host_or_another_box() {
    world::tell(async || {
        let platform = platform();
        let out = reaching_out(&platform, "out", Driver::Auto).await;
        assert_eq!(out.driver, "krun");
        assert_eq!(platform.says("out", &knock(INTERNET, 80)).await, "192.0.2.2", "as the machine itself");
        let meaning = platform.says("out", "nslookup -type=a shop.example").await;
        assert!(meaning.contains(INTERNET), "{meaning}");
        reaching_out(&platform, "other", Driver::Sandbox).await;
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["192.0.2.2", "192.0.2.3", "198.18.0.1", "198.18.0.5", "127.0.0.1"] {
            is_refused(&platform, "out", address, port).await;
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "somebody came");
        is_refused(&platform, "out", "198.18.0.6", 80).await;
        is_refused(&platform, "out", "169.254.169.254", 80).await;
        is_refused(&platform, "out", "192.0.2.2", platform.address.port()).await;
        is_refused(&platform, "other", "198.18.0.2", 80).await;

        for process in [out.pid, vmm(&out).pid] {
            assert_eq!(interfaces(process), ["lo"], "what is on the machine has no way out itself");
        }
        assert_eq!(links().len(), 2);
        vmm(&out).kill();
        let anew = next(&platform, &out).await;
        assert_eq!(anew.driver, "krun");
        assert_eq!(
            platform.says("out", &knock(INTERNET, 80)).await,
            "192.0.2.2",
            "its next machine has it again"
        );
    });
}

#[test]
fn a_microvm_that_does_not_ask_for_the_internet_reaches_nothing_and_has_nothing_to_reach_it_with() {
    world::tell(async || {
        let platform = platform();
        let none = machine(&platform, "none").await;
        for (address, port) in [(INTERNET, 80), ("192.0.2.2", platform.address.port()), ("198.18.0.1", 80)] {
            is_refused(&platform, "none", address, port).await;
        }
        assert!(!platform.sh("none", "nslookup -type=a shop.example").await.0);
        assert!(!platform.sh("none", "ls /sys/class/net/eth0").await.0, "there is no device");
        for process in [none.pid, vmm(&none).pid] {
            assert_eq!(interfaces(process), ["lo"]);
        }
        assert_eq!(links(), [""; 0]);
        assert_eq!(admin("nft list ruleset"), "", "nobody asked, nothing was changed");
    });
}
