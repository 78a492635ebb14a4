//! Who asks for the internet gets the internet, and nothing of the machine that it runs on; who doesn't gets nothing.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::Stdio,
};

use nexushub_e2e::{
    App, Options, Platform, rounds, soon, workshop,
    world::{self, INTERNET, admin, links, there},
};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Driver, Egress, Instance},
};

fn asking(platform: &Platform, name: &str, driver: Driver, egress: Egress) -> Instance {
    let instance = platform.instance(&App::named(name));
    Instance { driver: driver.into(), egress: egress.into(), ..instance }
}

/// Has an app run in a box that may reach this, and waits for it.
async fn boxed(platform: &Platform, name: &str, egress: Egress) -> InstanceStatus {
    platform.put(asking(platform, name, Driver::Auto, egress)).await.unwrap();
    platform.running(name).await
}

/// A script that connects and says what it hears.
fn knock(address: &str, port: u16) -> String {
    format!("bash -c 'exec 3<>/dev/tcp/{address}/{port} && cat <&3'")
}

async fn reaches_the_internet(platform: &Platform, name: &str) {
    assert_eq!(platform.says(name, &knock(INTERNET, 80)).await, "192.0.2.2", "as the machine itself");
}

async fn is_refused(platform: &Platform, name: &str, address: &str, port: u16) {
    let (well, said) = platform.sh(name, &knock(address, port)).await;
    assert!(!well && said.contains("connect:"), "{name} at {address}:{port}: {said}");
}

fn nobody_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody came");
}

#[test]
fn a_box_reaches_the_internet_and_its_names_but_not_its_host_or_another_box() {
    world::tell(async || {
        let platform = Platform::start();
        let status = boxed(&platform, "out", Egress::Internet).await;
        assert_eq!(status.driver, "sandbox");
        boxed(&platform, "other", Egress::Internet).await;
        reaches_the_internet(&platform, "out").await;
        let meaning = platform.says("out", "getent ahostsv4 shop.example").await;
        assert!(meaning.contains(INTERNET), "{meaning}");
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(admin("ip address add 192.0.2.77/24 dev up0"));
        for address in ["192.0.2.2", "192.0.2.3", "192.0.2.77", "198.18.0.1", "198.18.0.5", "127.0.0.1"] {
            is_refused(&platform, "out", address, port).await;
        }
        nobody_came(&listener);
        is_refused(&platform, "out", "198.18.0.6", 80).await;
        assert!(TcpStream::connect("169.254.169.254:80").is_ok(), "the host itself reaches it");
        is_refused(&platform, "out", "169.254.169.254", 80).await;
        is_refused(&platform, "out", "192.0.2.2", platform.address.port()).await;
    });
}

#[test]
fn a_way_out_is_no_way_in_for_who_else_is_on_the_machine() {
    world::tell(async || {
        let platform = Platform::start();
        boxed(&platform, "out", Egress::Internet).await;
        let serve = "$l = IO::Socket::INET->new(Listen => 5, LocalPort => 9999) or die; print $c \"in\\n\" while $c = $l->accept";
        let script = format!(
            "perl -MIO::Socket::INET -e '{serve}' >/dev/null 2>&1 & \
             until bash -c 'exec 3<>/dev/tcp/198.18.0.2/9999 && read -r said <&3 && echo $said' 2>/dev/null; do :; done"
        );
        assert_eq!(platform.says("out", &script).await, "in", "the box itself gets in");
        assert!(TcpStream::connect("198.18.0.2:9999").is_err());
        assert_eq!(platform.https().get("out", "/").await.status, 200, "by the shim it does");
    });
}

#[test]
fn who_sends_as_another_box_is_not_heard() {
    world::tell(async || {
        let platform = Platform::start();
        let out = boxed(&platform, "out", Egress::Internet).await;
        boxed(&platform, "other", Egress::Internet).await;
        let listen = "$s = IO::Socket::INET->new(LocalAddr => '203.0.113.80:7', Proto => 'udp') or die; $| = 1; \
                      alarm 60; print qq(listens\n); $s->recv($m, 9); print qq($m\n)";
        let mut ear =
            there("perl").args(["-MIO::Socket::INET", "-e", listen]).stdout(Stdio::piped()).spawn().unwrap();
        let mut heard = BufReader::new(ear.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(heard.next().as_deref(), Some("listens"));
        // As a guest's kernel might, which a microVM's app has taken over.
        drop(admin(&format!("nsenter -t {} -n ip address add 198.18.0.6/32 dev eth0", out.pid)));
        for (address, word) in [("198.18.0.6", "another"), ("198.18.0.2", "itself")] {
            let say = format!(
                "IO::Socket::INET->new(PeerAddr => '203.0.113.80:7', LocalAddr => '{address}', Proto => 'udp')->send('{word}')"
            );
            drop(admin(&format!("nsenter -t {} -n perl -MIO::Socket::INET -e \"{say}\"", out.pid)));
        }
        assert_eq!(heard.next().as_deref(), Some("itself"));
        assert!(ear.wait().unwrap().success());
    });
}

#[test]
fn a_box_that_does_not_ask_for_the_internet_reaches_nothing() {
    world::tell(async || {
        let platform = Platform::start();
        boxed(&platform, "in", Egress::Unspecified).await;
        boxed(&platform, "none", Egress::None).await;
        for name in ["in", "none"] {
            for address in [INTERNET, "192.0.2.2", "198.18.0.1"] {
                is_refused(&platform, name, address, 80).await;
            }
            assert!(!platform.sh(name, "getent ahostsv4 shop.example").await.0);
        }
        assert_eq!(links(), [""; 0]);
        assert_eq!(admin("nft list ruleset"), "", "nobody asked, nothing was changed");
        assert_eq!(admin("cat /proc/sys/net/ipv4/conf/up0/forwarding").trim(), "0");
    });
}

#[test]
fn the_way_out_outlives_procmgr_which_finds_its_rules_gone_and_puts_them_back() {
    world::tell(async || {
        let platform = Platform::start();
        let app = boxed(&platform, "out", Egress::Internet).await;
        let rules = admin("nft list ruleset");
        platform.kill("procmgr").await;
        assert_eq!(platform.running("out").await.pid, app.pid);
        reaches_the_internet(&platform, "out").await;
        drop(admin("nft flush ruleset"));
        platform.kill("procmgr").await;
        let back = async {
            while admin("nft list ruleset") != rules {
                tokio::task::yield_now().await;
            }
        };
        soon("the rules are back", back).await;
        assert_eq!(platform.running("out").await.pid, app.pid);
        reaches_the_internet(&platform, "out").await;
        is_refused(&platform, "out", "192.0.2.2", platform.address.port()).await;
    });
}

#[test]
fn with_its_box_a_way_out_goes_and_with_the_platform_all_that_was_changed() {
    world::tell(async || {
        let mut platform = Platform::start();
        let mut rules = String::new();
        for round in 0..rounds(10) {
            boxed(&platform, "brief", Egress::Internet).await;
            reaches_the_internet(&platform, "brief").await;
            assert_eq!(links().len(), 1);
            let now = admin("nft list ruleset");
            assert!(round == 0 || now == rules, "{now}");
            rules = now;
            assert!(platform.remove("brief").await.unwrap());
            let gone = async {
                while !links().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            soon("the box's end of the way out goes", gone).await;
        }
        assert!(platform.stop().success());
        assert_eq!(admin("nft list ruleset"), "");
        assert_eq!(admin("cat /proc/sys/net/ipv4/conf/up0/forwarding").trim(), "0");
    });
}

#[test]
fn a_restarted_box_has_its_way_out_again() {
    world::tell(async || {
        let platform = Platform::start();
        let mut last = boxed(&platform, "out", Egress::Internet).await;
        for _ in 0..3 {
            platform.https().get("out", "/crash?code=3").await;
            let fresh = |status: &InstanceStatus| status.routed && status.generation > last.generation;
            last = platform.instance_until("out", "runs anew", fresh).await;
            reaches_the_internet(&platform, "out").await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_have_a_way_out_is_refused_with_the_reason_and_never_runs_without() {
    let programs = workshop::programs_for_anybody();
    let platform = Platform::start_with(&Options::of_no_root(programs.path()));
    for (name, driver, why) in [
        ("user", Driver::Sandbox, "egress \"internet\" needs root"),
        ("best", Driver::Auto, "egress \"internet\" needs root"),
        ("machine", Driver::Krun, "egress \"internet\" needs root"),
    ] {
        let instance = asking(&platform, name, driver, Egress::Internet);
        platform.hand_over();
        platform.put(instance).await.unwrap();
        let failed = |status: &InstanceStatus| status.state() == State::Failed;
        let status = platform.instance_until(name, "is refused", failed).await;
        assert!(status.reason.contains(why), "{name}: {}", status.reason);
        assert_eq!(status.generation, 0, "{name}");
    }
}
