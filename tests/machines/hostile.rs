//! A hostile app in a microVM tries everything, while another answers everybody: in a world of the story's own, with hosts beside the
//! machine that it would like to reach.

use std::net::TcpListener;

use nexushub_e2e::{
    App, Load, Platform,
    world::{self, INTERNET, links},
};
use nexushub_proto::provider::{Driver, Egress, Instance};

use crate::{
    fork_bomb,
    microvms::{machine, platform},
};

/// What an app might try, in its own words.
const DEEDS: &[&str] = &[
    "cat /etc/shadow",
    "ls $STATE",
    "ls $RUN",
    "cat $RUN/operator/*",
    "ls /db/../../../$STATE",
    "ls /tmp/../../$STATE",
    "ls /app/../../$STATE",
    "ln -sf / /db/out && ls /db/out/$STATE",
    "ls /usr/../$STATE",
    "ls $OTHER",
    "ls /root",
    "cat /proc/1/environ",
    "kill -9 1",
    "touch /app/x",
    "touch /usr/x",
    "touch /x",
    "echo 1 > /proc/sys/kernel/panic",
    "echo c > /proc/sysrq-trigger",
    "mount -t tmpfs none /tmp",
    "umount /proc",
    "chroot / true",
    "mknod /db/disk b 254 0",
    "reboot -f",
    "poweroff -f",
    "cat /dev/mem",
    "cat /proc/1/mem",
    "trace 1",
    "trace $MANAGER",
    "kill -9 $MANAGER",
    "unshare -m true",
    "unshare -n true",
    "nsenter -t 1 -m true",
    "ping -c 1 -W 2 127.0.0.1", // which takes a raw socket
    "mkdir -p /db/f; for n in $(seq 200); do : > /db/f/$n; done; tail -n 1 /db/f/*", // more files than it may have open
    "cat /config",
    "nc -w 2 127.0.0.1 $PORT_OUT < /dev/null",
    "nc -w 2 169.254.169.254 80 < /dev/null",
    "nc -w 2 $INTERNET 80 < /dev/null",
    "nc -w 2 192.0.2.2 $PORT_OUT < /dev/null", // the machine
    "nc -w 2 192.0.2.2 $PORT_SERVICE < /dev/null",
    "nc -w 2 127.0.0.1 $PORT_SERVICE < /dev/null",
    "nc -w 2 198.18.0.2 80 < /dev/null", // another box, which has a way out of its own, from either side
    "nc -w 2 198.18.0.1 80 < /dev/null",
    "ip link add x type veth",
    "ip route add default dev lo",
    "dd if=/dev/zero of=/tmp/full bs=1M count=20",
];

/// Has the app do these, all of which fail.
async fn fails_at(platform: &Platform, told: &str, deeds: &[&str]) {
    for deed in deeds {
        let (well, said) = platform.sh("hostile", &format!("{told}{deed}")).await;
        assert!(!well, "{deed} was done: {said}");
        assert!(!said.contains("not found"), "{deed} could not be tried: {said}");
    }
}

#[test]
fn whatever_a_hostile_app_tries_in_its_microvm_fails_and_its_neighbour_answers_everybody_meanwhile() {
    world::tell(async || {
        let platform = platform();
        let other = platform.instance(&App::named("other").within(Driver::Sandbox));
        platform.put(Instance { egress: Egress::Internet.into(), ..other }).await.unwrap();
        let other = platform.running("other").await;
        let hostile = machine(&platform, "hostile").await;
        platform.says("other", "echo private > /db/secret").await;
        let service = TcpListener::bind("0.0.0.0:0").unwrap();
        service.set_nonblocking(true).unwrap();
        let told = format!(
            "STATE={} RUN={} OTHER={} PORT_OUT={} PORT_SERVICE={} MANAGER={} INTERNET={INTERNET}; \
             export STATE RUN OTHER PORT_OUT PORT_SERVICE MANAGER INTERNET; ",
            platform.state().display(),
            platform.run().display(),
            platform.data_of("other").display(),
            platform.address.port(),
            service.local_addr().unwrap().port(),
            platform.daemon("procmgr").await.pid
        );
        let load = Load::start(&platform.https(), "other", 1, 0);
        load.goes_on(5).await;
        fails_at(&platform, &told, DEEDS).await;
        assert!(service.accept().is_err(), "somebody came");
        assert_eq!(links().len(), 1, "that of the other alone");
        assert_eq!(platform.running("hostile").await.generation, hostile.generation);
        assert!(!platform.sh("hostile", &fork_bomb(100)).await.0, "it may have 64 processes");
        load.goes_on(5).await;
        platform.https().get("hostile", "/eat?mib=400").await;
        load.goes_on(5).await;
        let tally = load.stop().await;
        assert_eq!(tally.failed(), 0, "{tally:?}");
        platform.running("hostile").await;
        let now = platform.running("other").await;
        assert_eq!((now.pid, now.restarts), (other.pid, other.restarts));
        assert_eq!(platform.says("other", "cat /db/secret").await, "private");
    });
}
