//! What we play to a side is heard in the stream of the other side, which goes on unbroken, and nothing
//! that was said is lost to the recording.

mod lab;

use std::sync::Arc;

use lab::*;
use trunkline_engine::{
    Codec, Companding, EngineError, Event, FrameKind, MediaKind, PayloadSpec, PlayMode, PlaySpec,
    Side, Source, Voice,
};
use trunkline_rtp::rtcp::{Compound, RtcpPacket};

const VOICE: u32 = 0x1111_1111;
const PLAY: u64 = 77;

/// Octet 128 + n stands for n times 256.
static STEPS: [i16; 256] = {
    let mut steps = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        steps[octet] = ((octet as i16) - 128) * 256;
        octet += 1;
    }
    steps
};

fn companding() -> Companding {
    Companding {
        expand: &STEPS,
        compress: |sample| ((sample >> 8) + 128) as u8,
    }
}

/// `packets` times 20 ms; octet n is n modulo 251.
fn sound(codec: Codec, packets: usize) -> Arc<Source> {
    let octets: Vec<u8> = (0..packets * 160).map(|n| (n % 251) as u8).collect();
    let frames = octets.chunks(160);
    Arc::new(Source::new(codec, 8000, 20_000, frames, Some(companding())).unwrap())
}

fn voice(payload_type: u8, source: &Arc<Source>) -> Voice {
    Voice {
        payload_type,
        source: Arc::clone(source),
    }
}

fn once(source: &Arc<Source>) -> PlaySpec {
    PlaySpec {
        session: SESSION,
        media: 0,
        to: Side::Callee,
        play: PLAY,
        mode: PlayMode::Insert,
        every_ns: 0,
        packet_us: 20_000,
        ssrc: 0xabcd,
        voices: vec![voice(0, source)],
    }
}

/// What the callee hears while the caller talks.
fn talk_on(lab: &mut Lab, said: &mut Rtp, packets: usize) -> Vec<Rtp> {
    let before = lab.log.sent.len();
    for _ in 0..packets {
        let next_ns = lab.now_ns + 20 * MS;
        lab.engine.handle_timeout(lab.now_ns, &mut lab.log);
        lab.rtp(Side::Caller, said);
        said.advance();
        lab.housekeeping_until(next_ns);
    }
    heard_since(lab, before)
}

fn silence(lab: &mut Lab, ms: u64) -> Vec<Rtp> {
    let before = lab.log.sent.len();
    lab.housekeeping_until(lab.now_ns + ms * MS);
    heard_since(lab, before)
}

fn heard_since(lab: &Lab, before: usize) -> Vec<Rtp> {
    let heard = lab.log.sent[before..].iter();
    heard
        .filter(|sent| sent.to == party(Side::Callee) && sent.slot == SLOTS[1].rtp)
        .map(|sent| Rtp::read(&sent.bytes))
        .collect()
}

fn play(lab: &mut Lab, spec: &PlaySpec) {
    lab.engine.play(lab.now_ns, spec).unwrap();
}

/// One stream without a gap, in which time never goes back.
fn assert_continuous(heard: &[Rtp]) {
    for pair in heard.windows(2) {
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!((160..8000).contains(&step), "{} {step}", pair[1].sequence);
    }
}

/// What of the sound was heard, octet by octet.
fn octets(heard: &[Rtp]) -> Vec<u8> {
    heard.iter().flat_map(|one| one.payload.clone()).collect()
}

fn is_sound(octets: &[u8]) -> bool {
    octets
        .iter()
        .enumerate()
        .all(|(n, &octet)| octet == (n % 251) as u8)
}

fn played(lab: &Lab) -> Vec<(u64, u32, u64, bool)> {
    let told = lab.log.events.iter();
    told.filter_map(|event| match event {
        Event::Played {
            play,
            packets,
            played_us,
            whole,
            ..
        } => Some((*play, *packets, *played_us, *whole)),
        _ => None,
    })
    .collect()
}

#[test]
fn an_announcement_takes_the_place_of_what_is_said_and_the_recording_keeps_both() {
    let mut lab = Lab::call();
    lab.engine.start_tap(SESSION, 3).unwrap();
    let mut said = Rtp::new(VOICE, 65_530);
    let mut heard = talk_on(&mut lab, &mut said, 4);
    let from_ns = lab.now_ns;
    play(&mut lab, &once(&sound(Codec::Pcmu, 5)));
    heard.extend(talk_on(&mut lab, &mut said, 9));
    assert_eq!(heard.len(), 13);
    assert_continuous(&heard);
    assert!(octets(&heard[..4]).iter().all(|&octet| octet == 0x55));
    assert!(is_sound(&octets(&heard[4..9])));
    assert!(octets(&heard[9..]).iter().all(|&octet| octet == 0x55));
    assert!(heard.iter().all(|one| one.ssrc == VOICE));
    let told = lab.log.events.last().unwrap();
    let expected = Event::Played {
        session: SESSION,
        media: 0,
        to: Side::Callee,
        play: PLAY,
        from_ns,
        to_ns: from_ns + 80 * MS,
        packets: 5,
        played_us: 100_000,
        whole: true,
    };
    assert_eq!(*told, expected);
    // What was said is there whole, what we played beside it.
    let frames = &lab.log.frames;
    let of = |kind| frames.iter().filter(move |(_, meta, _)| meta.kind == kind);
    assert_eq!(of(FrameKind::Rtp).count(), 13);
    assert!(of(FrameKind::Rtp).all(|(_, _, bytes)| *bytes == [0x55; 160]));
    let ours: Vec<Rtp> = of(FrameKind::Injected)
        .map(|(tap, meta, bytes)| {
            assert_eq!(
                (*tap, meta.side, meta.telephone_event),
                (3, Side::Caller, false)
            );
            Rtp::read(bytes)
        })
        .collect();
    assert_eq!(octets(&ours), octets(&heard[4..9]));
    let receipts = lab.receipts();
    assert_eq!(receipts.len(), 1);
    let receipt = &receipts[0];
    assert_eq!(
        (receipt.expected, receipt.written, receipt.lost),
        (13, 13, 0)
    );
    assert_eq!((receipt.reordered, receipt.duplicates), (0, 0));
    assert_eq!(lab.engine.counters().played, 5);
    assert_eq!(lab.engine.next_deadline_ns(), None, "it rests afterwards");
}

#[test]
fn who_is_sent_nothing_hears_it_by_our_clock_and_what_is_said_later_continues_it() {
    let mut lab = Lab::call();
    play(&mut lab, &once(&sound(Codec::Pcmu, 5)));
    let mut heard = silence(&mut lab, 1_000);
    assert_eq!(heard.len(), 5);
    assert!(is_sound(&octets(&heard)));
    assert!(heard.iter().all(|one| one.ssrc == 0xabcd && one.pt == 0));
    let marked: Vec<bool> = heard.iter().map(|one| one.marker).collect();
    assert_eq!(marked, [true, false, false, false, false]);
    assert_eq!(played(&lab), [(PLAY, 5, 100_000, true)]);
    let mut said = Rtp::new(VOICE, 40_000);
    heard.extend(talk_on(&mut lab, &mut said, 5));
    assert_eq!(heard.len(), 10);
    assert_continuous(&heard);
    // 200 ms until it began; 800 ms from then on until something was said.
    assert_eq!(heard[5].timestamp - heard[0].timestamp, 800 * 8);
    assert!(octets(&heard[5..]).iter().all(|&octet| octet == 0x55));
    let report = sender_report(9, 0, 0xabcd, 10);
    let sent = lab.arrive(SLOTS[1].rtcp, address("198.51.100.1:6005"), &report);
    assert_eq!(reported(&sent[0].bytes), [(VOICE, 40_004)]);
}

fn reported(bytes: &[u8]) -> Vec<(u32, u32)> {
    let compound = Compound::parse(bytes).unwrap();
    let blocks = compound.packets().filter_map(|packet| match packet {
        RtcpPacket::SenderReport(report) => report.reports().next(),
        _ => None,
    });
    blocks
        .map(|block| (block.ssrc(), block.highest()))
        .collect()
}

#[test]
fn it_goes_on_by_our_clock_when_the_other_side_falls_silent_and_back() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 100);
    let mut heard = talk_on(&mut lab, &mut said, 5);
    play(&mut lab, &once(&sound(Codec::Pcmu, 30)));
    heard.extend(talk_on(&mut lab, &mut said, 5));
    heard.extend(silence(&mut lab, 200));
    let ours = heard.len() - 10;
    assert!((8..=9).contains(&ours), "{ours}");
    assert!(heard[10].marker, "a new talk spurt");
    // What it sends is late by a packet, and again in time.
    said.timestamp += 200 * 8 - 160;
    heard.extend(talk_on(&mut lab, &mut said, 20));
    assert_continuous(&heard);
    assert!(is_sound(&octets(&heard[5..10 + ours])));
    assert!(
        octets(&heard[heard.len() - 4..])
            .iter()
            .all(|&octet| octet == 0x55)
    );
    assert_eq!(played(&lab).len(), 1);
    assert!(played(&lab)[0].3, "all of it");
    // Reports about it lead back to the caller's own numbers.
    let highest = u32::from(heard.last().unwrap().sequence);
    let report = sender_report(9, 0, VOICE, highest);
    let sent = lab.arrive(SLOTS[1].rtcp, address("198.51.100.1:6005"), &report);
    assert_eq!(
        reported(&sent[0].bytes),
        [(VOICE, u32::from(said.sequence) - 1)]
    );
}

#[test]
fn a_tone_comes_again_and_nothing_is_touched_in_between() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 0);
    let spec = PlaySpec {
        every_ns: 200 * MS,
        ..once(&sound(Codec::Pcmu, 2))
    };
    play(&mut lab, &spec);
    let heard = talk_on(&mut lab, &mut said, 42);
    assert_continuous(&heard);
    let tone: Vec<usize> = (0..42)
        .filter(|&n| heard[n].payload != [0x55; 160])
        .collect();
    assert_eq!(tone, [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]);
    assert_eq!(played(&lab).len(), 4);
    lab.engine.stop_play(SESSION, 0, Side::Callee).unwrap();
    let last = lab.engine.poll_played();
    assert!(
        matches!(
            last,
            Some(Event::Played {
                packets: 2,
                whole: true,
                ..
            })
        ),
        "{last:?}"
    );
    let heard = talk_on(&mut lab, &mut said, 20);
    assert!(octets(&heard).iter().all(|&octet| octet == 0x55));
}

#[test]
fn a_tone_is_mixed_into_what_is_said_and_does_not_overflow() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 0);
    said.payload = (0..160).map(|n| 100 + n as u8 / 2).collect();
    let spec = PlaySpec {
        mode: PlayMode::Mix,
        ..once(&sound(Codec::Pcmu, 1))
    };
    play(&mut lab, &spec);
    let heard = talk_on(&mut lab, &mut said, 2);
    for n in 0..160 {
        let sum = (i32::from(said.payload[n]) - 128) + (n as i32 - 128);
        let expected = sum.clamp(-128, 127) + 128;
        assert_eq!(i32::from(heard[0].payload[n]), expected, "octet {n}");
    }
    assert_eq!(heard[1].payload, said.payload);
    // Muted, the tone alone is heard.
    let mut muted = leg(Side::Caller);
    muted.flags.mute = true;
    lab.update(&muted);
    play(&mut lab, &PlaySpec { play: 2, ..spec });
    let heard = talk_on(&mut lab, &mut said, 2);
    // Silence is the octet 255, which these steps take for 127.
    assert_eq!(heard[0].payload[0], 127);
    assert_eq!(heard[0].payload[129], 255);
    assert_eq!(heard[1].payload, [0xff; 160]);
}

#[test]
fn each_packet_gets_its_own_part_whatever_is_lost_repeated_or_longer() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 10);
    said.payload = vec![0x55; 240];
    talk_on(&mut lab, &mut said, 1);
    play(&mut lab, &once(&sound(Codec::Pcmu, 9)));
    lab.engine.handle_timeout(lab.now_ns, &mut lab.log);
    let begun = said.timestamp;
    // 30 ms each: the third is lost, the fourth comes twice, the second after it. The last one is from
    // before it began.
    for place in [0, 1, 3, 3, 2, 4, -1_i32] {
        let mut packet = said.clone();
        packet.sequence = said.sequence.wrapping_add(place as u16);
        packet.timestamp = begun.wrapping_add((place * 240) as u32);
        let heard = lab.rtp(Side::Caller, &packet);
        let heard = Rtp::read(&heard[0].bytes);
        assert_eq!(heard.timestamp, packet.timestamp);
        let whole: Vec<u8> = (0..1440).map(|n| (n % 251) as u8).collect();
        let part = usize::try_from(place * 240).map(|at| &whole[at..at + 240]);
        assert_eq!(heard.payload, part.unwrap_or(&[0x55; 240]), "{place}");
    }
}

#[test]
fn digits_and_comfort_noise_pass() {
    let mut lab = Lab::call();
    let mut spec = leg(Side::Caller);
    spec.payloads.push(PayloadSpec {
        pt: 13,
        to_pt: 13,
        codec: Codec::ComfortNoise,
        clock_hz: 8000,
    });
    lab.update(&spec);
    let mut said = Rtp::new(VOICE, 0);
    play(&mut lab, &once(&sound(Codec::Pcmu, 50)));
    let mut heard = talk_on(&mut lab, &mut said, 5);
    let mut key = Rtp {
        pt: 101,
        payload: vec![5, 10, 0, 160],
        ..said.clone()
    };
    for _ in 0..10 {
        let before = lab.log.sent.len();
        lab.rtp(Side::Caller, &key);
        key.sequence += 1;
        lab.housekeeping_until(lab.now_ns + 50 * MS);
        let now = heard_since(&lab, before);
        assert_eq!(now.len(), 1, "nothing of ours in between");
        assert_eq!(
            (now[0].timestamp, &now[0].payload),
            (key.timestamp, &key.payload)
        );
        heard.extend(now);
    }
    let mut noise = Rtp {
        pt: 13,
        payload: vec![40],
        timestamp: key.timestamp + 4000,
        ..key
    };
    for _ in 0..4 {
        let before = lab.log.sent.len();
        lab.rtp(Side::Caller, &noise);
        noise.sequence += 1;
        noise.timestamp += 1600;
        lab.housekeeping_until(lab.now_ns + 200 * MS);
        let now = heard_since(&lab, before);
        assert_eq!(now[0].payload, [40]);
        assert!(now.len() >= 5, "by our clock in between");
        heard.extend(now);
    }
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert!(pair[1].timestamp >= pair[0].timestamp);
    }
    let sound: Vec<Rtp> = heard.into_iter().filter(|one| one.pt == 0).collect();
    assert!(is_sound(&octets(&sound[..5])));
}

#[test]
fn who_receives_nothing_for_a_time_hears_the_rest_afterwards() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 0);
    play(&mut lab, &once(&sound(Codec::Pcmu, 10)));
    let mut heard = talk_on(&mut lab, &mut said, 4);
    let mut held = leg(Side::Callee);
    held.flags.may_send = false;
    lab.update(&held);
    assert!(talk_on(&mut lab, &mut said, 40).is_empty());
    assert!(played(&lab).is_empty());
    lab.update(&leg(Side::Callee));
    heard.extend(talk_on(&mut lab, &mut said, 10));
    assert!(is_sound(&octets(&heard[..10])));
    assert_eq!(heard[10].payload, [0x55; 160]);
    assert_eq!(played(&lab), [(PLAY, 10, 200_000, true)]);
}

#[test]
fn it_follows_the_codec_that_the_other_side_changes_to() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 0);
    let (mu, a) = (sound(Codec::Pcmu, 10), sound(Codec::Pcma, 10));
    let mut spec = once(&mu);
    spec.voices.push(voice(8, &a));
    play(&mut lab, &spec);
    let mut heard = talk_on(&mut lab, &mut said, 4);
    said.pt = 8;
    heard.extend(talk_on(&mut lab, &mut said, 8));
    assert!(is_sound(&octets(&heard[..10])));
    assert!(heard[4..].iter().all(|one| one.pt == 8));
    assert_continuous(&heard);
    // What there is no sound for passes, and nothing is told of.
    play(
        &mut lab,
        &PlaySpec {
            play: 2,
            ..once(&mu)
        },
    );
    let heard = talk_on(&mut lab, &mut said, 20);
    assert_eq!(heard.len(), 20);
    assert!(octets(&heard).iter().all(|&octet| octet == 0x55));
    assert_eq!(played(&lab).len(), 1);
}

#[test]
fn packets_of_opus_leave_with_ours_of_the_same_duration() {
    let mut lab = Lab::call();
    for side in Side::BOTH {
        let mut spec = leg(side);
        spec.payloads.push(PayloadSpec {
            pt: 111,
            to_pt: 96,
            codec: Codec::Opus,
            clock_hz: 48_000,
        });
        lab.update(&spec);
    }
    // CELT frames of 10 ms.
    let frames: Vec<Vec<u8>> = (0..8).map(|n| vec![0xf0, n, n, n]).collect();
    let frames = frames.iter().map(Vec::as_slice);
    let source = Arc::new(Source::new(Codec::Opus, 48_000, 10_000, frames, None).unwrap());
    let mut said = Rtp::new(VOICE, 7);
    // SILK of 20 ms, shorter than what takes its place.
    (said.pt, said.payload) = (111, vec![0x48, 1]);
    let mut spec = once(&source);
    // Only G.711 can be mixed.
    spec.mode = PlayMode::Mix;
    spec.voices[0].payload_type = 96;
    play(&mut lab, &spec);
    let mut heard = Vec::new();
    for _ in 0..6 {
        let next_ns = lab.now_ns + 20 * MS;
        let before = lab.log.sent.len();
        lab.engine.handle_timeout(lab.now_ns, &mut lab.log);
        lab.rtp(Side::Caller, &said);
        (said.sequence, said.timestamp) = (said.sequence + 1, said.timestamp + 960);
        lab.housekeeping_until(next_ns);
        heard.extend(heard_since(&lab, before));
    }
    assert_eq!(heard.len(), 6);
    for (n, one) in heard.iter().enumerate() {
        assert_eq!((one.pt, one.sequence), (96, 7 + n as u16));
        assert_eq!(one.timestamp, 7 * 160 + n as u32 * 960);
    }
    assert_eq!(heard[0].payload, [0xf3, 0x82, 3, 0, 0, 0, 1, 1, 1]);
    assert_eq!(heard[3].payload, [0xf3, 0x82, 3, 6, 6, 6, 7, 7, 7]);
    assert_eq!(heard[4].payload, said.payload);
}

#[test]
fn what_is_ended_or_replaced_tells_what_was_heard() {
    let mut lab = Lab::call();
    let mut said = Rtp::new(VOICE, 0);
    let source = sound(Codec::Pcmu, 10);
    play(&mut lab, &once(&source));
    let mut heard = talk_on(&mut lab, &mut said, 3);
    // The same again goes on.
    play(&mut lab, &once(&source));
    heard.extend(talk_on(&mut lab, &mut said, 3));
    assert!(is_sound(&octets(&heard)));
    assert_eq!(lab.engine.poll_played(), None);
    let told = |lab: &mut Lab| match lab.engine.poll_played() {
        Some(Event::Played {
            play,
            packets,
            whole,
            ..
        }) => (play, packets, whole),
        other => panic!("{other:?}"),
    };
    play(
        &mut lab,
        &PlaySpec {
            play: 2,
            ..once(&source)
        },
    );
    assert_eq!(told(&mut lab), (PLAY, 6, false));
    assert!(is_sound(&octets(&talk_on(&mut lab, &mut said, 2))));
    lab.engine.stop_play(SESSION, 0, Side::Callee).unwrap();
    assert_eq!(told(&mut lab), (2, 2, false));
    let heard = talk_on(&mut lab, &mut said, 3);
    assert!(octets(&heard).iter().all(|&octet| octet == 0x55));
    // To the other side too; the session takes it along.
    play(
        &mut lab,
        &PlaySpec {
            play: 3,
            to: Side::Caller,
            ..once(&source)
        },
    );
    let before = lab.log.sent.len();
    lab.housekeeping_until(lab.now_ns + 300 * MS);
    assert!(
        lab.log.sent[before..]
            .iter()
            .all(|one| one.to == party(Side::Caller))
    );
    let sent = lab.log.sent.len();
    assert!(sent > before);
    lab.engine.remove_session(SESSION).unwrap();
    assert_eq!(told(&mut lab).0, 3);
    lab.housekeeping_until(lab.now_ns + SECOND);
    assert_eq!((lab.log.sent.len(), lab.engine.poll_played()), (sent, None));
    assert_eq!(lab.engine.next_deadline_ns(), None);
}

#[test]
fn nonsense_is_refused() {
    let mut lab = Lab::call();
    let good = once(&sound(Codec::Pcmu, 1));
    let wrong = [
        (
            PlaySpec {
                session: 99,
                ..good.clone()
            },
            EngineError::NotFound,
        ),
        (
            PlaySpec {
                media: 3,
                ..good.clone()
            },
            EngineError::NotFound,
        ),
        (
            PlaySpec {
                packet_us: 0,
                ..good.clone()
            },
            EngineError::Invalid,
        ),
        (
            PlaySpec {
                packet_us: 1_000_000,
                ..good.clone()
            },
            EngineError::Invalid,
        ),
        (
            PlaySpec {
                voices: Vec::new(),
                ..good.clone()
            },
            EngineError::Invalid,
        ),
        (
            PlaySpec {
                voices: vec![good.voices[0].clone(); 5],
                ..good.clone()
            },
            EngineError::Invalid,
        ),
        (
            PlaySpec {
                voices: vec![voice(128, &good.voices[0].source)],
                ..good.clone()
            },
            EngineError::Invalid,
        ),
    ];
    for (spec, error) in wrong {
        assert_eq!(lab.engine.play(lab.now_ns, &spec), Err(error), "{spec:?}");
    }
    let mut video = Lab::bare(MediaKind::OpaqueRtp);
    let refused = video.engine.play(video.now_ns, &good);
    assert_eq!(refused, Err(EngineError::Invalid));
    assert_eq!(
        lab.engine.stop_play(99, 0, Side::Caller),
        Err(EngineError::NotFound)
    );
    assert_eq!(lab.engine.stop_play(SESSION, 0, Side::Caller), Ok(()));
}
