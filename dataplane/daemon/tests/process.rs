//! The dataplane as a process: its command line, its lock, its idle cost.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::{Call, Dataplane, binary, output};

#[test]
fn wrong_usage_ends_with_2_and_help_shows_an_example() {
    assert_eq!(output(&mut binary()).0, Some(2));
    assert_eq!(output(binary().args(["--config"])).0, Some(2));
    assert_eq!(output(binary().args(["--config", "a", "b"])).0, Some(2));
    let (code, help, _) = output(binary().arg("--help"));
    assert_eq!(code, Some(0));
    assert!(
        help.contains("trunkline-dataplane --config /etc/"),
        "{help}"
    );
}

#[test]
fn a_config_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trunkline.toml");
    let (code, _, error) = output(binary().arg("--config").arg(&path));
    assert_eq!(code, Some(1));
    assert!(error.contains("trunkline.toml"), "{error}");
    for backend in ["xdp", "dpdk"] {
        std::fs::write(&path, format!("[dataplane]\nbackend = {backend:?}\n")).unwrap();
        let (code, _, error) = output(binary().arg("--config").arg(&path));
        assert_eq!(code, Some(1));
        assert!(error.contains("not supported yet"), "{error}");
    }
    std::fs::write(&path, "[dataplane]\ncores = [4095]\n").unwrap();
    let (code, _, error) = output(
        binary()
            .arg("--config")
            .arg(&path)
            .current_dir(directory.path()),
    );
    assert_eq!(code, Some(1));
    assert!(error.contains("4095"), "{error}");
}

#[test]
fn a_second_dataplane_on_the_same_data_is_refused() {
    let mut dataplane = Dataplane::start("uring", 11);
    let mut control = dataplane.attach();
    let config = dataplane.directory.path().join("trunkline.toml");
    let (code, _, error) = output(binary().arg("--config").arg(config));
    assert_eq!(code, Some(1));
    assert!(error.contains("another dataplane"), "{error}");
    assert!(control.link.is_alive());
}

#[test]
fn the_log_says_what_was_chosen_and_what_fits() {
    for backend in ["uring", "mmsg"] {
        let mut dataplane = Dataplane::start(backend, 12);
        let _control = dataplane.attach();
        let log = dataplane.log();
        for word in [
            "backend",
            "capacity",
            "port_pairs=100",
            "open_files=",
            "extents=",
        ] {
            assert!(log.contains(word), "no {word} in:\n{log}");
        }
        let deadline = Instant::now() + common::PATIENCE;
        while !dataplane.log().contains("recorded_calls_by_disk=") {
            assert!(Instant::now() < deadline, "{}", dataplane.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What the threads of a process have done so far, by their ids: times that they gave up a processor,
/// and CPU time in ns.
fn activity(pid: u32) -> HashMap<String, [u64; 2]> {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |thread: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let (status, times) = (read("status"), read("schedstat"));
        let mut lines = status.lines();
        let sleeps = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let did = [number(sleeps), number(times.split(' ').next())];
        (thread.file_name().to_string_lossy().into_owned(), did)
    };
    threads.map(|thread| of(thread.unwrap())).collect()
}

/// What all threads together do in a while, each second.
fn activity_a_second(pid: u32) -> [f64; 2] {
    let (before, start) = (activity(pid), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (after, seconds) = (activity(pid), start.elapsed().as_secs_f64());
    [0, 1].map(|what| {
        let rise = |(thread, did): (&String, &[u64; 2])| {
            did[what] - before.get(thread).map_or(0, |before| before[what])
        };
        after.iter().map(rise).sum::<u64>() as f64 / seconds
    })
}

#[test]
fn park_costs_next_to_nothing_when_nothing_flows() {
    // Conductor, and worker where the kernel counts for it, once a second.
    const WAKES_A_SECOND_MAX: f64 = 3.0;
    for backend in ["uring", "mmsg"] {
        let mut dataplane = Dataplane::start(backend, 13);
        let mut control = dataplane.attach();
        let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
        call.talk(2);
        // What starting left to do is done first, however long that takes.
        let deadline = Instant::now() + common::PATIENCE;
        loop {
            let [wakes, cpu_ns] = activity_a_second(dataplane.pid());
            let cpu_ms = cpu_ns / 1e6;
            eprintln!("{backend}: {wakes:.1} wake-ups and {cpu_ms:.3} ms of CPU a second");
            if wakes <= WAKES_A_SECOND_MAX {
                break;
            }
            assert!(Instant::now() < deadline, "{backend}: {wakes} wake-ups/s");
        }
        call.talk(1);
    }
}
