//! The dataplane process end to end: relay, record, read back.

mod common;

use common::{Call, Control, Dataplane, open, start_recording};
use nix::sys::signal::Signal;
use trunkline_link::counters::{ConductorCounter, RecorderCounter, WorkerCounter};
use trunkline_link::message::*;
use trunkline_sn3::{FrameKind, Keys, RecordingReader};

/// What a recording holds: audio payloads by side, and the kinds of all other frames in order.
fn read_recording(dataplane: &Dataplane, recording: u64) -> ([Vec<Vec<u8>>; 2], Vec<FrameKind>) {
    let directory = dataplane.data_dir().join("segments");
    let reader = RecordingReader::in_directory(&directory, recording, None, &Keys::none()).unwrap();
    assert!(reader.damages().is_empty(), "{:?}", reader.damages());
    let mut audio = [Vec::new(), Vec::new()];
    let mut others = Vec::new();
    for frame in reader.frames() {
        match frame.kind {
            FrameKind::Rtp => audio[usize::from(frame.side)].push(frame.payload.to_vec()),
            kind => others.push(kind),
        }
    }
    (audio, others)
}

fn pair(recording: u64) -> (u64, u64) {
    (1, recording)
}

fn phase_of(event: &Event) -> (RecordingPhase, &[StreamReceipt]) {
    match event {
        Event::RecordingState { phase, streams, .. } => (*phase, streams),
        other => panic!("{other:?}"),
    }
}

fn relay_and_record(backend: &str, test: u8) {
    let mut dataplane = Dataplane::start(backend, test);
    let mut control = dataplane.attach();
    assert_eq!(control.link.dataplane_pid(), dataplane.pid());
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 9));
    call.talk(50);
    for side in Side::BOTH {
        let party = call.parties[side as usize].socket.local_addr().unwrap();
        control.expect(|event| {
            matches!(event, Event::EndpointLearned { session: 1, side: of, rtcp: false, address, .. }
                if *of == side && *address == party)
        });
    }
    let (session, recording) = pair(9);
    let paused = control.ask(&Command::RecordingPause { session, recording });
    assert_eq!(phase_of(&paused).0, RecordingPhase::Paused);
    call.talk(10);
    let resumed = control.ask(&Command::RecordingResume { session, recording });
    assert_eq!(phase_of(&resumed).0, RecordingPhase::Running);
    call.talk(20);
    let stopped = control.ask(&Command::RecordingStop { session, recording });
    let (phase, streams) = phase_of(&stopped);
    assert_eq!((phase, streams.len()), (RecordingPhase::Stopped, 2));
    for stream in streams {
        assert_eq!(
            (stream.expected, stream.written, stream.lost),
            (70, 70, 0),
            "{stream:?}"
        );
    }
    call.talk(5);
    let fact = br#"{"verdict":"complete"}"#.to_vec();
    let kind = FactKind::CallClose;
    control.done(&Command::RecordingFact {
        session,
        recording,
        kind,
        fact,
    });
    control.send(&Command::RecordingFinish { session, recording });
    let closed = control.expect(|event| matches!(event, Event::RecordingClosed { .. }));
    let Event::RecordingClosed {
        extents,
        bytes,
        streams,
        ..
    } = closed
    else {
        unreachable!()
    };
    assert!(
        extents >= 2 && bytes >= 140 * 192,
        "{extents} extents of {bytes} bytes"
    );
    assert!(streams.iter().all(|stream| stream.written == 70));

    let (audio, others) = read_recording(&dataplane, 9);
    for side in 0..2 {
        assert_eq!(audio[side].len(), 70);
        let mut replay = common::Party::new([0x1111, 0x2222][side]);
        let sent: Vec<_> = (0..80).map(|_| replay.packet()[12..].to_vec()).collect();
        assert!(audio[side][..50] == sent[..50] && audio[side][50..] == sent[60..]);
    }
    assert_eq!(others[..2], [FrameKind::Clock, FrameKind::CallOpen]);
    assert_eq!(others.last(), Some(&FrameKind::CallClose));
    assert!(others.contains(&FrameKind::Pause) && others.contains(&FrameKind::Resume));

    control.done(&Command::SessionClose { session: 1 });
    let counters = control.link.counters();
    assert_eq!(counters.workers_total(WorkerCounter::RtpPacketsIn), 170);
    assert_eq!(counters.workers_total(WorkerCounter::RtpPacketsOut), 170);
    assert_eq!(counters.conductor(ConductorCounter::SessionsOpened), 1);
    assert!(counters.recorder(RecorderCounter::ExtentsWritten) >= 2);
}

#[test]
fn a_call_is_relayed_both_ways_and_recorded_with_io_uring() {
    relay_and_record("uring", 1);
}

#[test]
fn a_call_is_relayed_both_ways_and_recorded_with_recvmmsg() {
    relay_and_record("mmsg", 2);
}

#[test]
fn closed_ports_are_closed_and_rest() {
    let mut dataplane = Dataplane::start("uring", 3);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    call.talk(3);
    control.done(&Command::SessionClose { session: 1 });
    for port in [call.ours[0], call.ours[1]] {
        let deadline = std::time::Instant::now() + common::PATIENCE;
        while std::net::UdpSocket::bind(port).is_err() {
            assert!(std::time::Instant::now() < deadline, "{port} stays bound");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    let next = Call::open(&mut control, dataplane.address, 2, [0, 0]);
    assert!(!call.ours.contains(&next.ours[0]) && !call.ours.contains(&next.ours[1]));
}

#[test]
fn sigterm_seals_recordings_tells_control_and_ends_with_0() {
    let mut dataplane = Dataplane::start("uring", 4);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 3));
    call.talk(25);
    dataplane.signal(Signal::SIGTERM);
    assert_eq!(dataplane.wait().code(), Some(0));
    control.expect(|event| matches!(event, Event::RecordingClosed { recording: 3, .. }));
    assert!(!control.link.is_alive());
    let (audio, _) = read_recording(&dataplane, 3);
    assert_eq!([audio[0].len(), audio[1].len()], [25, 25]);
    assert!(!dataplane.socket().exists());
}

#[test]
fn a_killed_dataplane_leaves_its_capture_and_its_ports_to_be_restored() {
    let mut dataplane = Dataplane::start("uring", 5);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 3));
    call.talk(25);
    let pool = control.link.pool();
    dataplane.signal(Signal::SIGKILL);
    dataplane.wait();
    assert!(!control.link.is_alive());
    let mut captured = Vec::new();
    for (index, meta) in pool.unfinished().filter(|(_, meta)| meta.recording == 3) {
        let mut bytes = Vec::new();
        assert!(pool.copy(index, &mut bytes).is_some());
        assert_eq!(bytes.len(), meta.published);
        captured.extend(bytes);
    }
    let mut replay = common::Party::new(0x2222);
    for number in 0..25 {
        let payload = replay.packet()[12..].to_vec();
        let found = captured.windows(160).any(|window| window == payload);
        assert!(found, "packet {number} of the callee is lost");
    }

    dataplane.restart();
    let mut control = dataplane.attach();
    let ports = [call.ours[0].port(), call.ours[1].port()];
    let answer = control.ask(&open(1, ports));
    assert!(matches!(answer, Event::SessionOpened { ports: got, .. } if got == [ports]));
    for side in Side::BOTH {
        control.done(&call.leg(side));
    }
    call.talk(10);
}

/// The other half of the next test, in a process of its own that can be killed.
#[test]
fn fake_control() {
    let Some(socket) = std::env::var_os("FAKE_CONTROL_SOCKET") else {
        return;
    };
    let link = trunkline_link::ControlLink::connect(std::path::Path::new(&socket)).unwrap();
    let mut control = Control::over(link);
    let answer = control.ask(&open(5, [0, 0]));
    let Event::SessionOpened { ports, .. } = answer else {
        panic!("{answer:?}")
    };
    let record = b"the dialogs of call 5".to_vec();
    control.done(&Command::SessionRecord { session: 5, record });
    eprintln!("ports {} {}", ports[0][0], ports[0][1]);
    std::thread::sleep(common::PATIENCE);
}

#[test]
fn a_killed_control_costs_no_packet_and_the_next_one_finds_everything() {
    use std::process::{Command as Process, Stdio};
    let mut dataplane = Dataplane::start("uring", 6);
    drop(dataplane.attach());
    let mut fake = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "fake_control", "--nocapture", "--test-threads=1"])
        .env("FAKE_CONTROL_SOCKET", dataplane.socket())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = common::read_line(fake.stderr.as_mut().unwrap());
    fake.kill().unwrap();
    fake.wait().unwrap();
    let ports: Vec<u16> = line
        .split(' ')
        .skip(1)
        .map(|port| port.parse().expect("a port"))
        .collect();

    let mut control = dataplane.attach();
    let request = control.send(&Command::Snapshot);
    control.expect(|event| *event == Event::SnapshotEnd { request });
    let sessions: Vec<_> = control
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::SnapshotSession(session) => Some(session),
            _ => None,
        })
        .collect();
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (sessions[0].session, sessions[0].media[0].ports.to_vec()),
        (5, ports)
    );
    assert_eq!(sessions[0].record, b"the dialogs of call 5");

    let mut call = Call::open(&mut control, dataplane.address, 5, [0, 0]);
    call.talk(10);
    drop(control);
    call.talk(40);
    let mut control = dataplane.attach();
    let request = control.send(&Command::Snapshot);
    control.expect(|event| *event == Event::SnapshotEnd { request });
    let learned = control
        .take_events()
        .into_iter()
        .filter(|event| matches!(event, Event::EndpointLearned { rtcp: false, .. }))
        .count();
    assert_eq!(learned, 2, "what was learned is told again");
    call.talk(10);
    control.done(&Command::SessionClose { session: 5 });
}

#[test]
fn what_the_kernel_drops_on_our_sockets_is_ours_in_the_receipt() {
    // A socket a port: the steered one holds more than this test's stream may skip.
    let mut dataplane = Dataplane::start("mmsg", 7);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 3));
    call.talk(20);
    dataplane.signal(Signal::SIGSTOP);
    let flood = 1_500;
    for _ in 0..flood {
        let packet = call.parties[0].packet();
        call.parties[0]
            .socket
            .send_to(&packet, call.ours[0])
            .unwrap();
    }
    dataplane.signal(Signal::SIGCONT);
    // What was kept is relayed; the packet after it closes the gap.
    let last = call.parties[0].packet();
    let mut heard = [0; 2000];
    loop {
        call.parties[0].socket.send_to(&last, call.ours[0]).unwrap();
        let length = call.parties[1].socket.recv(&mut heard).unwrap();
        if heard[..length] == last {
            break;
        }
    }
    let stopped = control.ask(&Command::RecordingStop {
        session: 1,
        recording: 3,
    });
    let (_, streams) = phase_of(&stopped);
    let caller = streams
        .iter()
        .find(|stream| stream.side == Side::Caller)
        .unwrap();
    let dropped = caller.dropped[DropReason::Socket as usize];
    assert_eq!(caller.expected, 20 + flood + 1);
    assert_eq!(
        caller.lost, 0,
        "nothing of this is the network's: {caller:?}"
    );
    assert!(dropped > flood / 2, "{caller:?}");
    assert_eq!(
        caller.expected,
        caller.written + caller.dropped.iter().sum::<u64>()
    );
    let counted = control
        .link
        .counters()
        .conductor(ConductorCounter::SocketDrops);
    assert!(counted >= dropped, "{counted} of {dropped}");
}

#[test]
fn an_ipv4_caller_and_an_ipv6_callee_hear_each_other() {
    let tables = "[[interface]]\nname = \"both\"\naddress = \"ADDRESS\"\nports = \"42000-42099\"\n\
                  [[interface]]\nname = \"both\"\naddress = \"::1\"\nports = \"42200-42399\"\n";
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let mut dataplane = Dataplane::start_with("", 8, tables);
    let mut control = dataplane.attach();
    let answer = control.ask(&Command::SessionOpen(SessionOpen {
        session: 1,
        interface: [0, 1],
        media_timeout_ms: 0,
        beside: 0,
        media: vec![MediaOpen {
            kind: MediaKind::Audio,
            ports: [0, 0],
        }],
    }));
    let Event::SessionOpened { ports, .. } = answer else {
        panic!("{answer:?}")
    };
    let [v4, v6] = ports[0];
    let mut call = Call {
        session: 1,
        ours: [
            std::net::SocketAddr::new(dataplane.address, v4),
            std::net::SocketAddr::new("::1".parse().unwrap(), v6),
        ],
        parties: [
            common::Party::new(0x1111),
            common::Party::at("[::1]:0", 0x2222),
        ],
    };
    for side in Side::BOTH {
        control.done(&call.leg(side));
    }
    call.talk(20);
}

#[test]
fn a_recorder_hears_both_sides_until_it_is_paused_and_the_call_goes_on() {
    let mut dataplane = Dataplane::start("uring", 14);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    let Command::SessionOpen(mut beside) = open(2, [0, 0]) else {
        unreachable!()
    };
    beside.beside = 1;
    let answer = control.ask(&Command::SessionOpen(beside));
    assert!(
        matches!(answer, Event::SessionOpened { worker: 0, .. }),
        "{answer:?}"
    );
    let recorders = [common::Party::new(0), common::Party::new(0)];
    for side in Side::BOTH {
        let Command::LegUpdate(mut leg) = call.leg(side) else {
            unreachable!()
        };
        leg.session = 2;
        leg.flags = leg_flags::MAY_SEND;
        leg.rtp = Some(recorders[side as usize].socket.local_addr().unwrap());
        leg.payloads.clear();
        control.done(&Command::LegUpdate(leg));
    }
    let (session, target) = (1, 2);
    control.done(&Command::ForkStart { session, target });
    call.talk(20);
    control.done(&Command::ForkState {
        session,
        target,
        state: ForkState::Paused,
    });
    call.talk(5);
    control.done(&Command::SessionClose { session: target });
    let told = control.expect(|event| {
        matches!(event, Event::ForkProgress { streams, .. } if streams.iter().all(|way| way.packets == 20))
    });
    let Event::ForkProgress { streams, .. } = told else {
        unreachable!()
    };
    assert_eq!(streams.len(), 2);
    assert!(streams.iter().all(|way| way.payload_bytes == 20 * 160));
    call.talk(5);
    let mut heard = [0; 2000];
    for (recorder, ssrc) in recorders.iter().zip([0x1111_u32, 0x2222]) {
        for count in 0..20_u16 {
            let length = recorder.socket.recv(&mut heard).unwrap();
            assert_eq!(length, 172);
            assert_eq!(heard[2..4], (65_500_u16.wrapping_add(count)).to_be_bytes());
            assert_eq!(heard[8..12], ssrc.to_be_bytes());
        }
        recorder.socket.set_nonblocking(true).unwrap();
        assert!(
            recorder.socket.recv(&mut heard).is_err(),
            "paused, then closed"
        );
    }
}

#[test]
fn a_spinning_worker_relays_too_and_a_fax_line_is_added_in_mid_call() {
    let mut dataplane = Dataplane::start_with("idle = \"spin\"\n", 9, "");
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 3));
    call.talk(5);
    let fax = MediaOpen {
        kind: MediaKind::OpaqueDatagram,
        ports: [0, 0],
    };
    let audio = MediaOpen {
        kind: MediaKind::Audio,
        ports: [0, 0],
    };
    let answer = control.ask(&Command::SessionOpen(SessionOpen {
        session: 1,
        interface: [0, 0],
        media_timeout_ms: 0,
        beside: 0,
        media: vec![audio, fax],
    }));
    let Event::SessionOpened { ports, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(ports[0], [call.ours[0].port(), call.ours[1].port()]);
    let machines = [common::Party::new(0), common::Party::new(0)];
    for side in Side::BOTH {
        let Command::LegUpdate(mut leg) = call.leg(side) else {
            unreachable!()
        };
        leg.media = 1;
        leg.rtp = Some(machines[side as usize].socket.local_addr().unwrap());
        leg.payloads.clear();
        control.done(&Command::LegUpdate(leg));
    }
    let at = |side: usize| std::net::SocketAddr::new(dataplane.address, ports[1][side]);
    let mut heard = [0; 2000];
    for length in [1, 40, 1400] {
        let page = vec![0xFA; length];
        machines[0].socket.send_to(&page, at(0)).unwrap();
        let (received, from) = machines[1].socket.recv_from(&mut heard).unwrap();
        assert_eq!((&heard[..received], from), (page.as_slice(), at(1)));
    }
    call.talk(5);
    control.ask(&Command::RecordingStop {
        session: 1,
        recording: 3,
    });
    control.send(&Command::RecordingFinish {
        session: 1,
        recording: 3,
    });
    control.expect(|event| matches!(event, Event::RecordingClosed { .. }));
    let (audio, others) = read_recording(&dataplane, 3);
    assert_eq!([audio[0].len(), audio[1].len()], [10, 10]);
    assert_eq!(
        others
            .iter()
            .filter(|kind| **kind == FrameKind::Opaque)
            .count(),
        3
    );
}
