//! Captures that nobody recorded: any bytes, any numbers. Nothing panics, memory and time stay
//! bounded, and what was promised about the length holds.

mod support;

use support::*;
use trunkline_audio::{ChannelLayout, Container, Options, Plan, write_sound};
use trunkline_codec::{CodecKind, Format, telephone_event::EventReport};
use trunkline_sn3::Capture;
use trunkline_sn3::facts::{CallChange, LegFact, PayloadFact};

/// Longest output that is really written here, in samples.
const WRITTEN_MAX: u64 = 1_500_000;

fn survive(bytes: Vec<u8>, options: &Options) {
    let Ok(capture) = Capture::from_bytes(bytes, "hostile".as_ref()) else {
        return;
    };
    let Ok(plan) = Plan::new(&capture, options) else {
        return;
    };
    if plan.samples() > WRITTEN_MAX {
        return;
    }
    let mut written = Vec::new();
    let mut write = |container| {
        written.clear();
        write_sound(
            &capture,
            &plan,
            container,
            None,
            &mut written,
            &mut |_, _| true,
        )
        .is_ok()
    };
    if write(Container::Wav) {
        assert_eq!(written.len() as u64, plan.wav_bytes());
    }
    if plan.samples() < WRITTEN_MAX / 100 {
        let mut write = |container| {
            written.clear();
            write_sound(
                &capture,
                &plan,
                container,
                None,
                &mut written,
                &mut |_, _| true,
            )
            .is_ok()
        };
        write(Container::Flac);
        write(Container::OggOpus);
    }
}

fn any_options(dice: &mut Dice) -> Options {
    let kinds = [
        CodecKind::G722,
        CodecKind::Opus,
        CodecKind::L16,
        CodecKind::Gsm,
        CodecKind::G729,
        CodecKind::Amr,
        CodecKind::AmrWb,
    ];
    Options {
        codec: (dice.below(3) == 0)
            .then(|| Format::usual(kinds[dice.below(kinds.len() as u64) as usize])),
        rate_hz: (dice.below(5) == 0).then(|| [8_000, 11_025, 48_000][dice.below(3) as usize]),
        early: dice.below(2) == 0,
        tones: dice.below(2) == 0,
        layout: [
            ChannelLayout::Stereo,
            ChannelLayout::Mono,
            ChannelLayout::Parties,
        ][dice.below(3) as usize],
        keep: dice.below(5) == 0,
        from_ms: [0, 0, 100, u64::MAX][dice.below(4) as usize],
        any_length: dice.below(2) == 0,
        to_ms: [None, Some(0), Some(500), Some(u64::MAX)][dice.below(4) as usize],
    }
}

fn any_packets(dice: &mut Dice) -> Vec<Packet> {
    let mut wall = 0_u64;
    (0..dice.below(80))
        .map(|n| {
            wall = match dice.below(30) {
                0 => wall + dice.below(40_000) * MS,
                1 => wall.saturating_sub(dice.below(3_000) * MS),
                2 => u64::MAX - dice.below(10),
                _ => wall.saturating_add(20 * MS),
            };
            if wall > u64::MAX / 2 {
                wall = n * 20 * MS;
            }
            let length = [160, 160, 160, 4, 1, 33, 20, 60, 960, 4_000][dice.below(10) as usize];
            Packet {
                dir: [0, 0, 1, 1, 2, 255][dice.below(6) as usize],
                seq: if dice.below(8) == 0 {
                    dice.below(65_536) as u16
                } else {
                    n as u16
                },
                ts: if dice.below(8) == 0 {
                    dice.below(1 << 32) as u32
                } else {
                    n as u32 * 160
                },
                wall_ns: wall,
                payload: (0..length).map(|_| dice.below(256) as u8).collect(),
                ssrc: dice.below(3) as u32,
                pt: [0, 8, 9, 13, 96, 97, 101, 127][dice.below(8) as usize],
            }
        })
        .collect()
}

#[test]
fn any_numbers_in_a_classic_blob() {
    let mut dice = Dice(42);
    for _ in 0..400 {
        let options = any_options(&mut dice);
        let bytes = blob(any_packets(&mut dice));
        survive(bytes, &options);
    }
}

#[test]
fn a_key_that_lasts_for_hours_by_a_nonsense_clock_is_no_flood() {
    // 65,535 ticks of a clock of 1 Hz, a hundred times over.
    let report = EventReport {
        event: 5,
        end: true,
        volume: 10,
        duration: u16::MAX,
    };
    let mut packets = pcmu(0, &speech(8_000, 20.0, 0), 0);
    for (n, packet) in packets.iter_mut().enumerate().skip(100).take(100) {
        packet.payload = report.encode().to_vec();
        packet.ts = n as u32;
        packet.pt = 101;
    }
    let mut call = Call::new(0, 20_000 * MS, packets);
    let payload = |pt, codec: &str, clock_hz| PayloadFact {
        pt,
        codec: codec.to_owned(),
        clock_hz,
        channels: 1,
        fmtp: String::new(),
    };
    call.open.legs = vec![LegFact {
        payloads: vec![payload(0, "PCMU", 1), payload(101, "telephone-event", 1)],
        ..LegFact::default()
    }];
    let options = Options {
        tones: true,
        ..Options::default()
    };
    let sound = render_with(call.bytes(), &options);
    assert!(!sound.plan.events().is_empty());
    for event in sound.plan.events() {
        assert!(event.duration_ms <= 8_192, "{event:?}");
    }
}

#[test]
fn any_bytes_after_a_magic() {
    let mut dice = Dice(77);
    for magic in [b"SN1", b"SN2", b"SN3"] {
        for _ in 0..150 {
            let mut bytes = magic.to_vec();
            let length = dice.below(6_000);
            // Small numbers are likelier to look like frames.
            bytes.extend((0..length).map(|_| (dice.below(256) & dice.below(256)) as u8));
            survive(bytes, &any_options(&mut dice));
        }
    }
}

#[test]
fn any_facts_around_any_numbers() {
    let mut dice = Dice(5);
    let codecs = [
        "PCMU",
        "opus",
        "L16",
        "G722",
        "CN",
        "telephone-event",
        "",
        "x",
    ];
    for _ in 0..300 {
        let mut call = Call::new(
            dice.below(3_000) * MS,
            dice.below(10_000) * MS,
            any_packets(&mut dice),
        );
        for at in [0, dice.below(2_000) * MS] {
            let payloads: Vec<PayloadFact> = (0..6)
                .map(|n| PayloadFact {
                    pt: [0, 96, 97, 101, 127, 200][n],
                    codec: codecs[dice.below(codecs.len() as u64) as usize].to_owned(),
                    clock_hz: [0, 1, 8_000, 16_000, 48_000, u32::MAX][dice.below(6) as usize],
                    channels: dice.below(256) as u8,
                    fmtp: String::new(),
                })
                .collect();
            let leg = LegFact {
                side: dice.below(3) as u8,
                payloads,
                ..LegFact::default()
            };
            let change = CallChange {
                legs: vec![leg],
                ..CallChange::default()
            };
            call.changes.push((at, change));
        }
        if dice.below(4) == 0 {
            call.open.answered_mono_ns = dice.below(u64::from(u32::MAX)) << 32;
        }
        if dice.below(4) == 0 {
            call.pauses
                .push((dice.below(5_000) * MS, dice.below(5_000) * MS));
        }
        survive(call.bytes(), &any_options(&mut dice));
    }
}
