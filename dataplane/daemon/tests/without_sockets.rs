//! Calls whose ports have no sockets of their own: more of them than the process may have files.

mod common;

use std::process::Command as Process;
use std::time::{Duration, Instant};

use common::{Call, Dataplane, PATIENCE};
use nix::sched::{CloneFlags, unshare};
use trunkline_link::counters::{ConductorCounter, WorkerCounter};

const TABLES: &str =
    "[[interface]]\nname = \"only\"\naddress = \"ADDRESS\"\nports = \"10000-13999\"\n";
/// Of the dataplane; four ports a call.
const FILES: u64 = 600;
const CALLS: u64 = 400;

/// Into a namespace of its own; false, with a word, where that is not allowed.
fn own_namespace() -> bool {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("not tested: {error}");
        return false;
    }
    let up = Process::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    true
}

#[test]
fn more_calls_than_files_are_carried_from_their_own_ports() {
    if !own_namespace() {
        return;
    }
    let mut dataplane = Dataplane::start_with_files(FILES, "cores = [0]\n", 50, TABLES);
    let mut control = dataplane.attach();
    let log = dataplane.log();
    if !log.contains("share sockets") {
        println!("not tested:\n{log}");
        return;
    }
    let fits = control
        .link
        .counters()
        .conductor(ConductorCounter::CallsMax);
    assert_eq!(fits, 1_000, "the ports have room for as many");
    let mut calls: Vec<_> = (1..=CALLS)
        .map(|session| Call::open(&mut control, dataplane.address, session, [0, 0]))
        .collect();
    for _ in 0..2 {
        calls.iter_mut().for_each(|call| call.talk(2));
    }
    let worker = |counter| control.link.counters().workers_total(counter);
    let start = Instant::now();
    // Counters are published a moment later.
    while worker(WorkerCounter::RtpPacketsOut) < 8 * CALLS {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(worker(WorkerCounter::RtpPacketsOut), 8 * CALLS);
    assert_eq!(worker(WorkerCounter::SendFailed), 0);
    // The process dies; the calls come back on the same ports at once.
    let ports: Vec<_> = calls
        .iter()
        .map(|call| call.ours.map(|ours| ours.port()))
        .collect();
    dataplane.signal(nix::sys::signal::Signal::SIGKILL);
    dataplane.wait();
    dataplane.restart();
    let mut control = dataplane.attach();
    for (call, ports) in calls.iter_mut().zip(ports).take(20) {
        *call = Call::open(&mut control, dataplane.address, call.session, ports);
        call.talk(2);
    }
}

#[test]
fn ports_that_the_kernel_gives_away_keep_their_sockets() {
    if !own_namespace() {
        return;
    }
    let given = TABLES.replace("10000-13999", "40000-40999");
    let mut dataplane = Dataplane::start_with_files(FILES, "cores = [0]\n", 51, &given);
    let mut control = dataplane.attach();
    let log = dataplane.log();
    assert!(log.contains("have a socket each"), "{log}");
    if log.contains("share sockets") || !log.contains("steered by BPF") {
        println!("not tested:\n{log}");
        return;
    }
    assert!(log.contains("ip_local_reserved_ports"), "{log}");
    let fits = control
        .link
        .counters()
        .conductor(ConductorCounter::CallsMax);
    assert_eq!(fits, (FILES - 256) / 4);
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    call.talk(2);
    // Nobody else gets it.
    std::net::UdpSocket::bind(call.ours[0]).unwrap_err();
}
