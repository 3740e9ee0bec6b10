//! Both ends of the link in one process: handover, replacement, death, overrun, hostile peers.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use trunkline_link::attach::{ControlLink, Incoming, LinkError, SendError, SendOutcome, Server};
use trunkline_link::counters::{Counters, WorkerCounter};
use trunkline_link::message::{Command, Event};
use trunkline_link::monotonic_ns;
use trunkline_link::pool::Pool;

struct Dataplane {
    server: Server,
    counters: trunkline_link::counters::CounterWriters,
    extents: Vec<trunkline_link::pool::Extent>,
}

fn dataplane(path: &Path) -> Dataplane {
    let (counters, writers) = Counters::create(1).unwrap();
    let (pool, extents) = Pool::create(4).unwrap();
    let server = Server::listen(path, counters.file(), pool.file()).unwrap();
    Dataplane {
        server,
        counters: writers,
        extents,
    }
}

fn wait(file: impl AsFd, milliseconds: u16) -> bool {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::from(milliseconds)).unwrap() > 0
}

/// Connects while the server is served from this thread.
fn attach(server: &mut Server, path: &Path) -> ControlLink {
    let path = path.to_owned();
    let client = std::thread::spawn(move || ControlLink::connect(&path).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "no attach");
        wait(&*server, 100);
        if server
            .service(monotonic_ns().unwrap())
            .unwrap()
            .attached
            .is_some()
        {
            break;
        }
    }
    client.join().unwrap()
}

/// Serves until the condition holds.
fn serve_until(server: &mut Server, mut done: impl FnMut(&mut Server, bool) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let detached = server.service(monotonic_ns().unwrap()).unwrap().detached;
        if done(server, detached) {
            return;
        }
        assert!(Instant::now() < deadline, "never came");
        if server.prepare_wait() {
            wait(&*server, 100);
        }
    }
}

fn socket_path(directory: &tempfile::TempDir) -> std::path::PathBuf {
    directory.path().join("run/dataplane.sock")
}

#[test]
fn commands_and_events_cross_and_wake_the_sleeper() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut control = attach(&mut dataplane.server, &path);
    assert_eq!(control.epoch(), 1);
    assert_eq!(control.dataplane_pid(), std::process::id());

    assert!(control.poll_event().unwrap().is_none());
    assert!(!wait(&control, 0));
    control
        .send(7, &Command::SessionClose { session: 3 })
        .unwrap();
    let mut got = None;
    serve_until(&mut dataplane.server, |server, _| {
        got = server.poll_command();
        got.is_some()
    });
    let command = Command::SessionClose { session: 3 };
    assert_eq!(
        got,
        Some(Incoming::Command {
            request: 7,
            command
        })
    );

    assert_eq!(
        dataplane.server.send_event(&Event::Done { request: 7 }),
        SendOutcome::Sent
    );
    assert!(wait(&control, 5000));
    assert_eq!(
        control.poll_event().unwrap(),
        Some(Event::Done { request: 7 })
    );
    assert_eq!(control.poll_event().unwrap(), None);
    assert!(!wait(&control, 0), "the doorbell was answered");
}

#[test]
fn counters_and_extents_stay_readable_after_the_dataplane() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut control = attach(&mut dataplane.server, &path);
    dataplane.counters.workers[0].add(WorkerCounter::RtpPacketsIn, 12);
    let mut extent = dataplane.extents.pop().unwrap();
    extent.open(0, 5, 0, 99);
    extent.bytes_mut()[..4].copy_from_slice(b"data");
    extent.publish(4);
    let (counters, pool) = (control.counters(), control.pool());
    assert!(control.is_alive());
    drop((dataplane, extent));
    assert!(wait(&control, 5000), "the end of the socket is an event");
    assert!(!control.is_alive());
    assert_eq!(control.send(1, &Command::Drain), Err(SendError::Dead));
    drop(control);
    assert_eq!(counters.worker(0, WorkerCounter::RtpPacketsIn), 12);
    let (index, meta) = pool.unfinished().next().unwrap();
    let mut bytes = Vec::new();
    pool.copy(index, &mut bytes).unwrap();
    assert_eq!((meta.recording, bytes.as_slice()), (5, b"data".as_slice()));
}

#[test]
fn a_second_attach_replaces_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut first = attach(&mut dataplane.server, &path);
    let mut second = attach(&mut dataplane.server, &path);
    assert_eq!(second.epoch(), 2);
    assert!(!first.is_alive());
    assert!(second.is_alive());
    second.send(1, &Command::Snapshot).unwrap();
    serve_until(&mut dataplane.server, |server, _| {
        server.poll_command().is_some()
    });
    drop(second);
    serve_until(&mut dataplane.server, |_, detached| detached);
    assert!(!dataplane.server.is_attached());
    assert_eq!(
        dataplane.server.send_event(&Event::Done { request: 1 }),
        SendOutcome::Detached
    );
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut dataplane = dataplane(&path);
    let (counters, _writers) = Counters::create(1).unwrap();
    let (pool, _extents) = Pool::create(1).unwrap();
    let second = Server::listen(&path, counters.file(), pool.file());
    assert!(matches!(second, Err(LinkError::AlreadyListening(_))));
    attach(&mut dataplane.server, &path);
}

#[test]
fn long_paths_work() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory
        .path()
        .join("d".repeat(120))
        .join("run/dataplane.sock");
    let mut dataplane = dataplane(&path);
    let control = attach(&mut dataplane.server, &path);
    assert_eq!(control.epoch(), 1);
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(
        ControlLink::connect(&socket_path(&directory)),
        Err(LinkError::Io(_))
    ));
}

#[test]
fn a_wrong_hello_is_refused_and_others_still_attach() {
    use nix::sys::socket::*;
    use std::os::fd::AsRawFd;
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let stranger = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        connect(stranger.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        send(
            stranger.as_raw_fd(),
            b"GET / HTTP/1.1",
            MsgFlags::MSG_NOSIGNAL,
        )
        .unwrap();
        strangers.push(stranger);
        dataplane.server.service(0).unwrap();
    }
    let mut control = attach(&mut dataplane.server, &path);
    assert!(control.is_alive());
}

#[test]
fn a_full_command_ring_pushes_back_and_an_overrun_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut control = attach(&mut dataplane.server, &path);
    let record = vec![1; 8192];
    let command = Command::SessionRecord { session: 1, record };
    let mut sent = 0;
    while control.send(1, &command).is_ok() {
        sent += 1;
    }
    assert_eq!(control.send(1, &command), Err(SendError::Full));
    assert!(sent > 100);
    let mut taken = 0;
    while dataplane.server.poll_command().is_some() {
        taken += 1;
    }
    assert_eq!(taken, sent);
    control.send(1, &command).unwrap();

    assert!(control.poll_event().unwrap().is_none());
    assert!(!control.take_overrun());
    while dataplane.server.send_event(&Event::Done { request: 1 }) == SendOutcome::Sent {}
    dataplane.server.note_overrun();
    assert!(wait(&control, 5000));
    while control.poll_event().unwrap().is_some() {}
    assert!(control.take_overrun());
    assert!(!control.take_overrun());
}

/// SplitMix64: a small seeded generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[test]
fn a_peer_that_scribbles_over_the_region_causes_errors_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let mut dataplane = dataplane(&path);
    let mut random = Random(0x5EED);
    for round in 0..24 {
        let mut control = attach(&mut dataplane.server, &path);
        let region = control.region().clone();
        let seed = random.next();
        let scribbler = std::thread::spawn(move || {
            let mut random = Random(seed);
            let words = region.all_words();
            for _ in 0..30_000 {
                // Now anywhere, now at the cursors and the first records, where it hurts most.
                let near = random.next().is_multiple_of(2);
                let limit = if near { 2048 + 64 } else { words.len() as u64 };
                let place = random.next() % limit;
                let value = match random.next() % 4 {
                    0 => random.next(),
                    1 => random.next() % 4096,
                    2 => 0x5452_4C4B_0000_0000 | (random.next() % 20_000),
                    _ => u64::MAX,
                };
                words[place as usize].store(value, Relaxed);
            }
        });
        for turn in 0..3000_u64 {
            let _ = control.send(turn, &Command::SessionClose { session: turn });
            let _ = control.poll_event();
            control.take_overrun();
            control.beat(turn);
            dataplane.server.service(turn).unwrap();
            while dataplane.server.poll_command().is_some() {}
            dataplane.server.send_event(&Event::Done { request: turn });
            dataplane.server.note_overrun();
            dataplane.server.prepare_wait();
            dataplane.server.beat(turn);
        }
        scribbler.join().unwrap();
        assert!(control.epoch() == round + 1, "each attach starts afresh");
    }
    // After all that, an honest control works.
    let mut control = attach(&mut dataplane.server, &path);
    control.send(5, &Command::Snapshot).unwrap();
    serve_until(&mut dataplane.server, |server, _| {
        server.poll_command()
            == Some(Incoming::Command {
                request: 5,
                command: Command::Snapshot,
            })
    });
}
