//! What a recorder hears of a session that is forked to it.

mod lab;

use lab::*;
use trunkline_engine::{
    Codec, EngineError, ForkState, ForkStats, LegFlags, LegSpec, MediaKind, MediaSpec, PayloadSpec,
    PortSlots, SessionSpec, Side,
};
use trunkline_rtp::rtcp::{Compound, RtcpPacket};

const RECORDER: u64 = 70;
const OTHER: u64 = 71;
/// Wall clock minus ours: 2026-11-25T08:00:00Z at 0.
const UNIX_OFFSET_NS: u64 = 1_795_593_600 * SECOND;

fn slots(first: u32) -> [PortSlots; 2] {
    let pair = |rtp| PortSlots { rtp, rtcp: rtp + 1 };
    [pair(first), pair(first + 2)]
}

fn recorder_at(side: Side) -> std::net::SocketAddr {
    address(match side {
        Side::Caller => "203.0.113.9:40000",
        Side::Callee => "203.0.113.9:40002",
    })
}

fn recorder_leg(session: u64, side: Side) -> LegSpec {
    LegSpec {
        session,
        rtp: Some(recorder_at(side)),
        signalling: None,
        payloads: Vec::new(),
        flags: LegFlags {
            may_send: true,
            ..LegFlags::default()
        },
        ..leg(side)
    }
}

fn add_recorder(lab: &mut Lab, session: u64, first_slot: u32) {
    let spec = SessionSpec {
        session,
        media_timeout_ns: 0,
        media: vec![MediaSpec {
            kind: MediaKind::Audio,
            slots: slots(first_slot),
        }],
    };
    lab.engine.add_session(lab.now_ns, &spec).unwrap();
    for side in Side::BOTH {
        lab.update(&recorder_leg(session, side));
    }
}

fn forked() -> Lab {
    let mut lab = Lab::call();
    add_recorder(&mut lab, RECORDER, 8);
    start(&mut lab, RECORDER).unwrap();
    lab
}

fn start(lab: &mut Lab, target: u64) -> Result<(), EngineError> {
    lab.engine
        .start_fork(lab.now_ns, SESSION, target, UNIX_OFFSET_NS)
}

fn to(sent: &[Sent], address: std::net::SocketAddr) -> Vec<Rtp> {
    sent.iter()
        .filter(|one| one.to == address)
        .map(|one| Rtp::read(&one.bytes))
        .collect()
}

fn stats(lab: &Lab) -> Vec<ForkStats> {
    let mut out = Vec::new();
    assert!(lab.engine.fork_stats(SESSION, RECORDER, &mut out));
    out
}

#[test]
fn each_side_is_heard_on_its_own_line_and_the_far_side_as_before() {
    let mut lab = forked();
    for side in Side::BOTH {
        let packet = Rtp::new(5, 100);
        let sent = lab.rtp(side, &packet);
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0].to, recorder_at(side));
        assert_eq!(sent[0].slot, slots(8)[side as usize].rtp);
        assert_eq!(sent[0].bytes, packet.bytes());
        assert_eq!(sent[1].to, party(side.other()));
        assert_eq!(sent[1].bytes, packet.bytes());
    }
    let totals = stats(&lab);
    assert_eq!(totals.len(), 2);
    assert!(
        totals
            .iter()
            .all(|way| (way.packets, way.payload_bytes) == (1, 160))
    );
}

#[test]
fn a_muted_or_unanswered_side_is_recorded_as_it_spoke() {
    let mut lab = forked();
    let mut muted = leg(Side::Caller);
    muted.flags.mute = true;
    lab.update(&muted);
    let mut silent = leg(Side::Callee);
    silent.flags.may_send = false;
    lab.update(&silent);
    let packet = Rtp::new(5, 100);
    let sent = lab.rtp(Side::Caller, &packet);
    assert_eq!(sent.len(), 1, "nothing to the callee");
    assert_eq!(sent[0].bytes, packet.bytes());
}

#[test]
fn a_change_of_source_is_one_stream_to_the_recorder() {
    let mut lab = forked();
    let first = lab.talk(Side::Callee, party(Side::Callee), &mut Rtp::new(1, 100), 5);
    lab.wait(40 * MS);
    let elsewhere = address("198.51.100.77:7000");
    let mut moved = leg(Side::Callee);
    moved.rtp = Some(elsewhere);
    lab.update(&moved);
    let second = lab.talk(Side::Callee, elsewhere, &mut Rtp::new(2, 40_000), 5);
    let heard: Vec<Rtp> = [first, second]
        .iter()
        .flat_map(|sent| to(sent, recorder_at(Side::Callee)))
        .collect();
    assert_eq!(heard.len(), 10);
    assert!(heard.iter().all(|packet| packet.ssrc == 1));
    let numbers: Vec<u16> = heard.iter().map(|packet| packet.sequence).collect();
    assert_eq!(numbers, (100..110).collect::<Vec<u16>>());
    assert!(heard.is_sorted_by_key(|packet| packet.timestamp));
}

#[test]
fn paused_copies_stop_at_the_packet_and_silenced_ones_go_on_as_silence() {
    let mut lab = forked();
    let mut packet = Rtp::new(5, 1);
    assert_eq!(lab.rtp(Side::Caller, &packet).len(), 2);
    lab.engine
        .set_fork_state(SESSION, RECORDER, ForkState::Paused)
        .unwrap();
    packet.advance();
    assert_eq!(lab.rtp(Side::Caller, &packet).len(), 1);
    lab.engine
        .set_fork_state(SESSION, RECORDER, ForkState::Silenced)
        .unwrap();
    packet.advance();
    let sent = lab.rtp(Side::Caller, &packet);
    assert_eq!(Rtp::read(&sent[0].bytes).payload, vec![0xff; 160]);
    assert_eq!(sent[1].bytes, packet.bytes(), "the callee hears the voice");
    packet.pt = 101;
    packet.payload = vec![1, 10, 0, 160];
    packet.advance();
    let digit = lab.rtp(Side::Caller, &packet);
    assert_eq!(digit.len(), 1, "no digit leaves while silenced");
    lab.engine
        .set_fork_state(SESSION, RECORDER, ForkState::Running)
        .unwrap();
    packet.advance();
    assert_eq!(lab.rtp(Side::Caller, &packet)[0].bytes, packet.bytes());
}

#[test]
fn payload_types_are_those_the_recorder_answered_and_others_stay() {
    let mut lab = forked();
    let mut answered = recorder_leg(RECORDER, Side::Caller);
    answered.payloads = vec![PayloadSpec {
        pt: 0,
        to_pt: 96,
        codec: Codec::Pcmu,
        clock_hz: 8000,
    }];
    lab.update(&answered);
    let packet = Rtp::new(5, 1);
    let sent = lab.rtp(Side::Caller, &packet);
    assert_eq!(Rtp::read(&sent[0].bytes).pt, 96);
    assert_eq!(sent[1].bytes, packet.bytes());
    let other = Rtp {
        pt: 8,
        ..Rtp::new(5, 2)
    };
    assert_eq!(lab.rtp(Side::Caller, &other).len(), 1);
    assert_eq!(stats(&lab)[0].withheld, 1);
}

#[test]
fn nothing_that_a_recorder_sends_reaches_anybody() {
    let mut lab = forked();
    let slots = slots(8)[0];
    let rtcp = sender_report(5, 1, 6, 2);
    let from = address("203.0.113.9:40001");
    assert!(lab.arrive(slots.rtcp, from, &rtcp).is_empty());
    let rtp = Rtp::new(9, 1).bytes();
    assert!(
        lab.arrive(slots.rtp, recorder_at(Side::Caller), &rtp)
            .is_empty()
    );
    assert_eq!(lab.engine.counters().fork_in, 2);
    assert_eq!(lab.engine.fork_heard_ns(RECORDER), lab.now_ns);
}

#[test]
fn our_own_sender_reports_tell_count_and_time() {
    let mut lab = forked();
    let mut packet = Rtp::new(5, 1);
    lab.talk(Side::Caller, party(Side::Caller), &mut packet, 50);
    let before = lab.log.sent.len();
    lab.housekeeping_until(lab.now_ns + 10 * SECOND);
    let reports = lab.log.sent[before..].to_vec();
    assert_eq!(reports.len(), 2, "one each 5 s, of the side that spoke");
    assert_eq!(reports[0].to, address("203.0.113.9:40001"));
    assert_eq!(reports[0].slot, slots(8)[0].rtcp);
    let compound = Compound::parse(&reports[0].bytes).unwrap();
    let mut packets = compound.packets();
    let Some(RtcpPacket::SenderReport(report)) = packets.next() else {
        panic!("no sender report");
    };
    assert_eq!(
        (report.ssrc(), report.packets(), report.octets()),
        (5, 50, 50 * 160)
    );
    assert!(matches!(
        packets.next(),
        Some(RtcpPacket::SourceDescription(_))
    ));
}

#[test]
fn several_recorders_hear_the_same_and_one_that_ends_does_not_touch_the_other() {
    let mut lab = forked();
    add_recorder(&mut lab, OTHER, 16);
    start(&mut lab, OTHER).unwrap();
    let mut packet = Rtp::new(5, 1);
    assert_eq!(lab.rtp(Side::Caller, &packet).len(), 3);
    lab.engine.remove_session(RECORDER).unwrap();
    packet.advance();
    let sent = lab.rtp(Side::Caller, &packet);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].slot, slots(16)[0].rtp);
    assert_eq!(
        lab.engine.stop_fork(SESSION, RECORDER),
        Err(EngineError::NotFound)
    );
}

#[test]
fn the_end_of_the_call_ends_its_forks_and_frees_the_recorder_for_another() {
    let mut lab = forked();
    lab.engine.remove_session(SESSION).unwrap();
    assert!(
        lab.engine
            .next_deadline_ns()
            .is_none_or(|at| at > lab.now_ns)
    );
    lab.housekeeping_until(lab.now_ns + 20 * SECOND);
    assert!(lab.log.sent.is_empty());
    let mut again = SessionSpec {
        session: 99,
        media_timeout_ns: 0,
        media: vec![],
    };
    again.media.push(MediaSpec {
        kind: MediaKind::Audio,
        slots: SLOTS,
    });
    lab.engine.add_session(lab.now_ns, &again).unwrap();
    lab.engine
        .start_fork(lab.now_ns, 99, RECORDER, UNIX_OFFSET_NS)
        .unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut lab = forked();
    assert_eq!(start(&mut lab, SESSION), Err(EngineError::WrongState));
    assert_eq!(start(&mut lab, 12345), Err(EngineError::NotFound));
    start(&mut lab, RECORDER).expect("again is fine: it tells of new m-lines");
    assert_eq!(
        lab.engine.start_fork(lab.now_ns, RECORDER, SESSION, 0),
        Err(EngineError::WrongState),
        "a recorder's session is not recorded"
    );
    for (index, first) in [16, 24, 32].into_iter().enumerate() {
        add_recorder(&mut lab, 80 + index as u64, first);
        start(&mut lab, 80 + index as u64).unwrap();
    }
    add_recorder(&mut lab, 90, 40);
    assert_eq!(start(&mut lab, 90), Err(EngineError::NoCapacity));
    assert_eq!(
        lab.engine.set_fork_state(SESSION, 90, ForkState::Paused),
        Err(EngineError::NotFound)
    );
}

#[test]
fn a_recorders_session_lives_as_long_as_the_call() {
    let mut lab = forked();
    lab.wait(100 * SECOND);
    lab.rtp(Side::Caller, &Rtp::new(5, 1));
    assert_eq!(lab.engine.last_packet_ns(RECORDER), Some(lab.now_ns));
}
