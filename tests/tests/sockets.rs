//! What the kernel drops because a port's receive buffer is full is a loss of ours, and is said so.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use trunkline_tests::api::{check_receipt, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::send_signal;
use trunkline_tests::rtpgen::Rtpgen;
use trunkline_tests::{Appliance, skip};

/// Makes the receive buffers of a process's UDP sockets as small as the kernel allows (a few packets);
/// says how many there were, `None` where we may not.
fn shrink_receive_buffers(pid: i32) -> Option<usize> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let mut shrunk = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if !target.to_string_lossy().starts_with("socket:") {
            continue;
        }
        let file = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let socket = UdpSocket::from(file);
        let udp = nix::sys::socket::getsockopt(&socket, sockopt::SockType)
            .is_ok_and(|kind| kind == nix::sys::socket::SockType::Datagram);
        if udp && socket.local_addr().is_ok() {
            setsockopt(&socket.as_fd(), sockopt::RcvBuf, &1).ok()?;
            shrunk += 1;
        }
    }
    Some(shrunk)
}

fn overflow(test: &str, backend: &'static str) {
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        dataplane: backend,
        ..Setup::to_port(port)
    });
    let run = Rtpgen::start(
        appliance.folder(),
        appliance.sip_port,
        port,
        &["--calls", "1", "--duration", "6"],
    );
    let _ = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_secs(2));
    let pid = appliance.child("trunkline-dataplane");
    match shrink_receive_buffers(pid) {
        None => return skip(test, "another process's sockets cannot be reached"),
        Some(count) => assert!(count >= 4, "{count} sockets"),
    }
    // A worker that gets no processor for a while: packets come, and nobody takes them.
    send_signal(pid, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    send_signal(pid, Signal::SIGCONT);
    let report = run.finish(Duration::from_secs(60));
    let result = &report["results"][0];
    let recordings = appliance.api.wait_for_recordings(1);
    let recording = &recordings[0];
    let expected = check_receipt(recording);
    let mut dropped = 0;
    for (side, sent) in [("caller", "caller"), ("callee", "callee")] {
        let tally = &recording["receipt"][side];
        let by_socket = number(&tally["dropped_by"], "socket");
        assert!(by_socket > 5, "{side}: {tally}");
        assert_eq!(
            number(tally, "lost"),
            0,
            "none of it is the network's: {tally}"
        );
        assert_eq!(number(tally, "dropped"), by_socket, "{tally}");
        let index = usize::from(side == "callee");
        assert_eq!(expected[index], number(&result[sent], "sent"), "{tally}");
        dropped += by_socket;
    }
    assert_eq!(recording["verdict"], "degraded", "{recording}");
    let metric = |name, label| appliance.api.metric(name, label) as u64;
    assert!(metric("trunkline_rtp_socket_drops_total", "") >= dropped);
    assert_eq!(metric("trunkline_capture_dropped_total", "socket"), dropped);
}

#[test]
fn a_full_receive_buffer_is_our_loss_with_io_uring() {
    overflow(
        "a_full_receive_buffer_is_our_loss_with_io_uring",
        "backend = \"uring\"",
    );
}

#[test]
fn a_full_receive_buffer_is_our_loss_with_recvmmsg() {
    overflow(
        "a_full_receive_buffer_is_our_loss_with_recvmmsg",
        "backend = \"mmsg\"",
    );
}
