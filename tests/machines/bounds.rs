//! The control groups of version 2 hold a box to its bounds, and say what it used.

use nexushub_e2e::{Options, Platform, platform::AT_REST};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Driver, Limits},
};

use crate::fork_bomb;

#[tokio::test(flavor = "multi_thread")]
async fn memory_processes_and_processor_time_are_bounded_and_counted() {
    let platform = Platform::start_with(&Options::with(AT_REST));
    let limits = Limits { memory_bytes: 48 << 20, processes: 30, cpu_percent: 50, ..Limits::default() };
    let greedy = platform.run_boxed("greedy", Driver::Sandbox, limits).await;
    assert_eq!(greedy.driver, "sandbox");
    let kept = |what: &str| !greedy.not_enforced.iter().any(|line| line.starts_with(what));
    assert!(kept("memory") && kept("processes") && kept("processor"), "{:?}", greedy.not_enforced);
    platform.run_boxed("other", Driver::Sandbox, Limits::default()).await;

    let bomb = fork_bomb(60);
    assert!(!platform.sh("greedy", &bomb).await.0, "the bound on processes holds");
    let used = platform.instance_now("greedy").await.unwrap().usage.unwrap();
    assert!(used.memory_bytes > 0 && used.cpu_usec > 0, "{used:?}");

    assert!(!platform.sh("greedy", "dd if=/dev/zero of=/dev/null bs=200M count=1").await.0);
    let lives = platform.instance_now("greedy").await.unwrap();
    assert!(lives.usage.unwrap().oom_kills > 0, "that a child of its was killed is told");
    platform.https().get("greedy", "/crash?code=3").await;
    let ended = |status: &InstanceStatus| status.state() == State::Failed;
    let ended = platform.instance_until("greedy", "has ended", ended).await;
    let its_own = ended.reason.contains("exited with code 3") && !ended.reason.contains("out of memory");
    assert!(its_own, "{}", ended.reason);
    platform.run_boxed("hungry", Driver::Sandbox, limits).await;
    platform.https().get("hungry", "/eat?mib=200").await;
    let told = |status: &InstanceStatus| status.reason.contains("out of memory: its bound is 48 MiB");
    platform.instance_until("hungry", "says why", told).await;
    assert_eq!(platform.https().get("other", "/").await.status, 200);
}
