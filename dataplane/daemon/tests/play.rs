//! Announcements and tones, by the dataplane process: loaded in pieces, heard, recorded as ours.

mod common;

use common::{Call, Control, Dataplane, start_recording};
use trunkline_codec::g711::{MU_LAW, encode_mu_law};
use trunkline_link::counters::WorkerCounter;
use trunkline_link::message::*;
use trunkline_sn3::{FrameKind, Keys, RecordingReader, flags};

/// A mu-law sound of so many frames of 20 ms, octet n being n modulo 251, in pieces.
fn load(control: &mut Control, source: u64, frames: u32) {
    let octets: Vec<u8> = (0..frames * 160).map(|n| (n % 251) as u8).collect();
    let frames: Vec<Vec<u8>> = octets.chunks(160).map(<[u8]>::to_vec).collect();
    for (piece, part) in frames.chunks(70).enumerate() {
        control.done(&Command::SourceLoad(SourceLoad {
            source,
            codec: CodecId::Pcmu,
            clock_hz: 8_000,
            frame_us: 20_000,
            frames_total: frames.len() as u32,
            first: piece as u32 * 70,
            frames: part.to_vec(),
        }));
    }
}

fn play(source: u64, to: Side, mode: PlayMode) -> PlayStart {
    PlayStart {
        session: 1,
        media: 0,
        to,
        play: source,
        mode,
        every_ms: 0,
        packet_ms: 20,
        ssrc: 0xabcd,
        voices: vec![PlayVoice { source, pt: 0 }],
    }
}

/// A packet of a side, and what the other one hears of it: sequence number and payload.
fn say(call: &mut Call, side: usize) -> (Vec<u8>, u16, Vec<u8>) {
    let packet = call.parties[side].packet();
    call.parties[side]
        .socket
        .send_to(&packet, call.ours[side])
        .unwrap();
    let (sequence, payload) = hear(call, 1 - side);
    (packet, sequence, payload)
}

fn hear(call: &Call, side: usize) -> (u16, Vec<u8>) {
    let mut heard = [0; 2000];
    let (length, _) = call.parties[side]
        .socket
        .recv_from(&mut heard)
        .expect("heard");
    (
        u16::from_be_bytes([heard[2], heard[3]]),
        heard[12..length].to_vec(),
    )
}

fn sound(at: usize) -> Vec<u8> {
    (at..at + 160).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_sound_takes_the_place_of_speech_or_is_mixed_into_it_and_the_recording_has_both() {
    let mut dataplane = Dataplane::start("uring", 1);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    control.done(&start_recording(1, 9));
    load(&mut control, 5, 100);
    load(&mut control, 6, 3);
    call.talk(5);
    control.done(&Command::PlayStart(play(5, Side::Callee, PlayMode::Insert)));
    for at in 0..100 {
        let (_, sequence, payload) = say(&mut call, 0);
        assert_eq!(sequence, 65_505_u16.wrapping_add(at));
        assert_eq!(payload, sound(usize::from(at) * 160));
    }
    let played = control.expect(|event| matches!(event, Event::Played { .. }));
    let Event::Played {
        packets,
        played_ms,
        whole,
        to,
        play: number,
        ..
    } = played
    else {
        unreachable!()
    };
    assert_eq!((number, packets, played_ms, whole), (5, 100, 2_000, true));
    assert_eq!(to, Side::Callee);
    control.done(&Command::PlayStart(play(6, Side::Caller, PlayMode::Mix)));
    for at in 0..3 {
        let (packet, _, payload) = say(&mut call, 1);
        for ((&said, ours), heard) in packet[12..].iter().zip(sound(at * 160)).zip(payload) {
            let sum = MU_LAW[usize::from(said)].saturating_add(MU_LAW[usize::from(ours)]);
            assert_eq!(heard, encode_mu_law(sum));
        }
    }
    call.talk(5);
    let (session, recording) = (1, 9);
    let stopped = control.ask(&Command::RecordingStop { session, recording });
    let Event::RecordingState { streams, .. } = stopped else {
        panic!("{stopped:?}")
    };
    assert_eq!(streams.iter().map(|one| one.written).sum::<u64>(), 110 + 13);
    assert!(
        streams
            .iter()
            .all(|one| (one.lost, one.reordered) == (0, 0))
    );
    control.send(&Command::RecordingFinish { session, recording });
    control.expect(|event| matches!(event, Event::RecordingClosed { .. }));
    assert_recorded(&dataplane);
    let counters = control.link.counters();
    assert_eq!(counters.workers_total(WorkerCounter::Played), 103);
    assert_eq!(counters.workers_total(WorkerCounter::RtpPacketsOut), 123);
}

/// What was said is there as it was said, and beside it what we played.
fn assert_recorded(dataplane: &Dataplane) {
    let directory = dataplane.data_dir().join("segments");
    let reader = RecordingReader::in_directory(&directory, 9, None, &Keys::none()).unwrap();
    assert!(reader.damages().is_empty(), "{:?}", reader.damages());
    let mut said = common::Party::new(0x1111);
    let mut at = 0;
    for frame in reader.frames() {
        let ours = frame.flags & flags::INJECTED != 0;
        assert_eq!(ours, frame.kind == FrameKind::Opaque);
        if frame.kind == FrameKind::Rtp && frame.side == 0 {
            assert_eq!(frame.payload[..], said.packet()[12..]);
        }
        if ours && frame.side == 0 {
            assert_eq!(frame.payload[12..], sound(at));
            at += 160;
        }
    }
    assert_eq!(at, 16_000);
}

#[test]
fn who_hears_nothing_hears_a_tone_by_our_clock_until_it_is_ended() {
    let mut dataplane = Dataplane::start("mmsg", 2);
    let mut control = dataplane.attach();
    let mut call = Call::open(&mut control, dataplane.address, 1, [0, 0]);
    let tone = PlayStart {
        every_ms: 300,
        ..play(5, Side::Caller, PlayMode::Insert)
    };
    let missing = control.ask(&Command::PlayStart(tone.clone()));
    let reason = FailReason::NotFound;
    assert!(matches!(missing, Event::Failed { reason: found, .. } if found == reason));
    load(&mut control, 5, 5);
    control.done(&Command::PlayStart(tone));
    for n in 1..=10_u16 {
        let (sequence, payload) = hear(&call, 0);
        assert_eq!(sequence, n);
        assert_eq!(payload, sound(usize::from((n - 1) % 5) * 160));
    }
    let stop = Command::PlayStop {
        session: 1,
        media: 0,
        to: Side::Caller,
    };
    control.done(&stop);
    // What the callee says then goes on in the same stream; one pass may have begun.
    let (_, sequence, _) = say(&mut call, 1);
    assert!((11..=16).contains(&sequence), "{sequence}");
    let played = control.take_events();
    let whole = |event: &&Event| {
        matches!(
            event,
            Event::Played {
                whole: true,
                packets: 5,
                ..
            }
        )
    };
    assert!(played.iter().filter(whole).count() >= 2, "{played:?}");
    control.done(&stop);
    control.done(&Command::SessionClose { session: 1 });
}
