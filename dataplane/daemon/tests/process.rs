//! The dataplane as a process: its command line, its lock, its idle cost.

mod common;

use std::time::Duration;

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
        let deadline = std::time::Instant::now() + common::PATIENCE;
        while !dataplane.log().contains("recorded_calls_by_disk=") {
            assert!(std::time::Instant::now() < deadline, "{}", dataplane.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// CPU time of all threads, in ns.
fn cpu_time(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let time = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|time| time.parse::<u64>().ok())
            .unwrap_or(0)
    };
    threads.map(|thread| time(thread.unwrap())).sum()
}

#[test]
fn park_costs_next_to_nothing_when_nothing_flows() {
    for backend in ["uring", "mmsg"] {
        let mut dataplane = Dataplane::start(backend, 13);
        let mut control = dataplane.attach();
        let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
        call.talk(2);
        // What starting left to do is done first.
        std::thread::sleep(Duration::from_secs(2));
        // What else the machine does makes it more, never less: the least of a few counts.
        let mut per_second = f64::MAX;
        for _ in 0..4 {
            let before = cpu_time(dataplane.pid());
            let measured = std::time::Instant::now();
            std::thread::sleep(Duration::from_secs(3));
            let spent = cpu_time(dataplane.pid()) - before;
            per_second = per_second.min(spent as f64 / measured.elapsed().as_secs_f64() / 1e6);
            if per_second < 1.0 {
                break;
            }
        }
        eprintln!("{backend}: {per_second:.3} ms of CPU a second");
        assert!(
            per_second < 1.0,
            "{backend}: {per_second} ms of CPU a second"
        );
        call.talk(1);
    }
}
