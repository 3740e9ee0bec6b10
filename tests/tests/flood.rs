//! Random and mutated messages against the running control.

use std::time::Duration;

use trunkline_tests::Appliance;
use trunkline_tests::appliance::Setup;
use trunkline_tests::flood::throw;
use trunkline_tests::ports::free_port;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};

/// Longest life of what a message leaves behind: a transaction of 64*T1, and some.
const REST: Duration = Duration::from_secs(36);

/// Resident memory of a process in KiB.
fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("VmRSS")
}

/// Two floods alike with a rest after each: the second leaves no more memory in use than the
/// first did. Calls go on beside both. `FLOOD_MESSAGES` is the length of both together
/// (`cargo xtask flood` makes it a million), `FLOOD_PER_SECOND` the pace.
#[test]
fn a_flood_of_mutated_messages_disturbs_no_call_and_leaves_no_memory_behind() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let messages = number("FLOOD_MESSAGES", 120_000);
    let per_second = number("FLOOD_PER_SECOND", 4_000);
    let port = free_port();
    // Of the flood's INVITEs only those that mutation gave the calls' user take ports.
    let route = format!("[[route]]\nuser = \"100\"\nnext = \"sip:127.0.0.1:{port}\"\n");
    let appliance = Appliance::start(&Setup {
        next: String::new(),
        sip: Box::leak(route.into_boxed_str()),
        ..Setup::to_port(port)
    });
    let control = appliance.child("trunkline-control");
    let start = resident_kib(control);
    let mut after = Vec::new();
    for seed in 1..=2 {
        // One long call that holds, and short ones all along.
        let seconds = (messages / 2 / per_second).max(4);
        let arguments = ["--calls", "3", "--duration", &seconds.min(60).to_string()];
        let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
        let _ = appliance.api.wait_for_call("active");
        let answers = throw(appliance.sip_port, seed, messages / 2, per_second);
        assert_ok(&run.finish(Duration::from_secs(seconds.min(60) + 60)));
        assert!(answers > 0, "nothing was answered");
        std::thread::sleep(REST);
        assert!(appliance.is_healthy(), "{}", appliance.log());
        after.push(resident_kib(control));
    }
    assert_eq!(
        appliance.child("trunkline-control"),
        control,
        "it never restarted"
    );
    assert!(!appliance.log().contains("panicked"), "{}", appliance.log());
    println!(
        "flood: {messages} messages, resident {start} KiB at the start, {} after the first half, {} after the second",
        after[0], after[1]
    );
    // The first half fills the bounded trace of messages. Allocators keep some; what grows with every message would be far beyond.
    let allowed = after[0] + after[0] / 10 + 4096;
    assert!(after[1] <= allowed, "from {} to {} KiB", after[0], after[1]);
}
