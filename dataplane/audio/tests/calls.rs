//! Captures that say what they are: answer, end, pauses, codecs by payload type, transfers.

mod support;

use support::*;
use trunkline_audio::{ChannelLayout, Options};
use trunkline_codec::{CodecKind, Format, g711};
use trunkline_sn3::facts::{CallChange, LegFact, PayloadFact};

fn leg(side: u8, payloads: &[(u8, &str, u32)]) -> LegFact {
    LegFact {
        side,
        kind: "audio".to_owned(),
        payloads: payloads
            .iter()
            .map(|&(pt, codec, clock_hz)| PayloadFact {
                pt,
                codec: codec.to_owned(),
                clock_hz,
                channels: 1,
                fmtp: String::new(),
            })
            .collect(),
        ..LegFact::default()
    }
}

#[test]
fn sample_zero_is_the_answer_and_the_length_is_the_calls() {
    // Recorded from 1 s before the answer; the call goes on half a second after the last packet.
    let (caller, callee) = (speech(8_000, 4.0, 0), speech(8_000, 4.0, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 5 * MS));
    let call = Call::new(1_000 * MS, 4_500 * MS, packets);
    let sound = render(call.bytes());
    assert_eq!(sound.left.len(), 28_000);
    assert_eq!(sound.left[..24_000], through_mu_law(&caller)[8_000..]);
    assert_eq!(
        sound.right[..24_000 + 40],
        through_mu_law(&callee)[8_000 - 40..]
    );
    assert_eq!(peak(&sound.right[24_040..]), 0);
    let early = render_with(
        call.bytes(),
        &Options {
            early: true,
            ..Options::default()
        },
    );
    assert_eq!(early.left.len(), 36_000);
    assert_eq!(early.left[..32_000], through_mu_law(&caller));
}

#[test]
fn two_packets_at_once_after_the_answer_are_heard_whole() {
    // SIPp and baresip start so: the first packet belongs 20 ms before the second one's arrival.
    let caller = speech(8_000, 2.0, 0);
    let answered = 1_000 * MS;
    let mut packets = pcmu(0, &caller, answered + 2 * MS);
    for packet in &mut packets[1..] {
        packet.wall_ns -= 20 * MS;
    }
    let sound = render(Call::new(answered, answered + 3_000 * MS, packets).bytes());
    assert_eq!(sound.left[..16_000], through_mu_law(&caller));
}

#[test]
fn an_answer_told_later_counts_too() {
    let caller = speech(8_000, 4.0, 0);
    let mut call = Call::new(0, 4_000 * MS, pcmu(0, &caller, 0));
    call.open.answered_mono_ns = 0;
    let answered = CallChange {
        reason: "answered".to_owned(),
        answered_mono_ns: Some(call.origin_mono_ns + 500 * MS),
        ..CallChange::default()
    };
    call.changes.push((500 * MS, answered));
    let sound = render(call.bytes());
    assert_eq!(sound.left, through_mu_law(&caller)[4_000..]);
}

#[test]
fn a_capture_that_was_cut_off_ends_with_its_last_sound() {
    let caller = speech(8_000, 4.0, 0);
    let mut call = Call::new(0, 0, pcmu(0, &caller, 100 * MS));
    call.ended_ns = None;
    let sound = render(call.bytes());
    assert_eq!(sound.left[800..], through_mu_law(&caller));
}

#[test]
fn a_pause_is_silence_of_its_own_length_from_its_first_sample() {
    let caller = speech(8_000, 4.0, 0);
    for paused_ms in [100, 1_000] {
        let mut packets = pcmu(0, &caller, 0);
        packets.retain(|p| !(1_000 * MS..(1_000 + paused_ms) * MS).contains(&p.wall_ns));
        let mut call = Call::new(0, 4_000 * MS, packets);
        call.pauses.push((995 * MS, (995 + paused_ms) * MS));
        let sound = render(call.bytes());
        let wanted = through_mu_law(&caller);
        let end = 8_000 + paused_ms as usize * 8;
        assert_eq!(sound.left[..8_000], wanted[..8_000]);
        assert_eq!(
            peak(&sound.left[8_000..end]),
            0,
            "nothing is made up in a pause"
        );
        assert_eq!(sound.left[end..], wanted[end..]);
    }
}

#[test]
fn hold_is_silence_of_its_own_length() {
    // During hold nobody sends; afterwards the numbering goes on where it was (SSRC and sequence
    // continuous, timestamps either counting the hold or not).
    let caller = speech(8_000, 4.0, 0);
    let wanted = through_mu_law(&caller);
    for timestamps_count_hold in [true, false] {
        let mut packets = pcmu(0, &caller, 0);
        for packet in &mut packets[100..] {
            packet.wall_ns += 3_000 * MS;
            if timestamps_count_hold {
                packet.ts += 24_000;
            }
        }
        let sound = render(Call::new(0, 7_000 * MS, packets).bytes());
        assert_eq!(sound.left[..16_000], wanted[..16_000]);
        assert_eq!(peak(&sound.left[16_000..40_000]), 0);
        assert_eq!(sound.left[40_000..56_000], wanted[16_000..]);
    }
}

#[test]
fn codecs_change_in_mid_call_by_payload_type() {
    let spoken = speech(8_000, 6.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for (n, packet) in packets.iter_mut().enumerate() {
        let samples = &spoken[n * 160..(n + 1) * 160];
        match n {
            100..200 => {
                packet.pt = 8;
                packet.payload = samples.iter().map(|&s| g711::encode_a_law(s)).collect();
            }
            200.. => {
                packet.pt = 100;
                packet.payload = samples.iter().flat_map(|s| s.to_be_bytes()).collect();
            }
            _ => {}
        }
    }
    let mut call = Call::new(0, 6_000 * MS, packets);
    let known = leg(
        0,
        &[(0, "PCMU", 8_000), (8, "PCMA", 8_000), (100, "L16", 8_000)],
    );
    call.changes.push((
        0,
        CallChange {
            legs: vec![known],
            ..CallChange::default()
        },
    ));
    let sound = render(call.bytes());
    assert_eq!(sound.left[..16_000], through_mu_law(&spoken)[..16_000]);
    assert!(snr_db(&spoken[16_000..32_000], &sound.left[16_000..32_000]) > 35.0);
    assert_eq!(sound.left[32_000..], spoken[32_000..]);
    let names: Vec<&str> = sound.plan.streams()[0]
        .codecs
        .iter()
        .map(|codec| codec.codec.as_str())
        .collect();
    assert_eq!(names, ["PCMU", "PCMA", "L16"]);
}

#[test]
fn a_payload_type_may_change_its_meaning() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for (n, packet) in packets.iter_mut().enumerate() {
        packet.pt = 96;
        if n >= 100 {
            let samples = &spoken[n * 160..(n + 1) * 160];
            packet.payload = samples.iter().map(|&s| g711::encode_a_law(s)).collect();
        }
    }
    let mut call = Call::new(0, 4_000 * MS, packets);
    call.open.legs = vec![leg(0, &[(96, "PCMU", 8_000)])];
    let change = CallChange {
        legs: vec![leg(0, &[(96, "PCMA", 8_000)])],
        ..CallChange::default()
    };
    call.changes.push((1_990 * MS, change));
    let sound = render(call.bytes());
    assert!(snr_db(&spoken, &sound.left) > 35.0);
}

#[test]
fn legs_of_different_rates_meet_at_the_higher_one() {
    let (narrow, wide) = (speech(8_000, 4.0, 0), speech(16_000, 4.0, 1));
    let mut encoder = Format::usual(CodecKind::G722).encoder().unwrap();
    let mut packets = pcmu(0, &narrow, 0);
    let mut callee = support::packets(1, &wide, 0, 320, 20 * MS, |frame| {
        let mut payload = Vec::new();
        encoder.encode(frame, &mut payload).unwrap();
        payload
    });
    for (n, packet) in callee.iter_mut().enumerate() {
        packet.ts = n as u32 * 160;
        packet.pt = 9;
    }
    packets.extend(callee);
    let call = Call::new(0, 4_000 * MS, packets);
    let sound = render(call.bytes());
    assert_eq!(
        (sound.rate_hz, sound.left.len(), sound.right.len()),
        (16_000, 64_000, 64_000)
    );
    // Every other sample of the doubled rate is a sample of the original.
    let halved: Vec<i16> = sound.left.iter().step_by(2).copied().collect();
    let quality = snr_db(&through_mu_law(&narrow)[100..31_900], &halved[100..31_900]);
    assert!(quality > 30.0, "{quality:.1} dB");
    assert!(snr_db(&wide[1_000..60_000], &sound.right[1_022..60_022]) > 20.0);
    let low = render_with(
        call.bytes(),
        &Options {
            rate_hz: Some(8_000),
            ..Options::default()
        },
    );
    assert_eq!(
        (low.rate_hz, low.left.clone()),
        (8_000, through_mu_law(&narrow))
    );
}

#[test]
fn a_transfer_puts_the_new_party_where_it_speaks() {
    let (first, second) = (speech(8_000, 3.0, 1), speech(8_000, 3.0, 2));
    let mut packets = pcmu(1, &first, 0);
    let mut later = pcmu(1, &second, 3_512 * MS);
    for packet in &mut later {
        packet.ssrc = 0xABCD;
        packet.seq = packet.seq.wrapping_add(31_000);
    }
    packets.extend(later);
    let sound = render(Call::new(0, 6_512 * MS, packets).bytes());
    assert_eq!(sound.right[..24_000], through_mu_law(&first));
    assert_eq!(peak(&sound.right[24_000..28_096]), 0);
    assert_eq!(sound.right[28_096..], through_mu_law(&second));
    assert_eq!(peak(&sound.left), 0);
}

#[test]
fn packet_times_from_10_to_60_ms_lie_alike() {
    let spoken = speech(8_000, 4.8, 0);
    for ms in [10, 20, 30, 40, 60] {
        let frame = ms as usize * 8;
        let packets = support::packets(0, &spoken, 40 * MS, frame, ms * MS, |samples| {
            samples.iter().map(|&s| g711::encode_mu_law(s)).collect()
        });
        let sound = render(Call::new(0, 4_840 * MS, packets).bytes());
        assert_eq!(sound.left[320..], through_mu_law(&spoken), "{ms} ms");
    }
}

#[test]
fn jitter_does_not_move_a_plain_call() {
    let spoken = speech(8_000, 20.0, 0);
    let mut dice = Dice(5);
    let mut packets = pcmu(0, &spoken, 50 * MS);
    for packet in &mut packets {
        packet.wall_ns += dice.below(30 * MS);
    }
    packets[0].wall_ns += 35 * MS;
    let sound = render(Call::new(0, 20_100 * MS, packets).bytes());
    let off = lag(&spoken[8_000..16_000], &sound.left, 8_400, 400);
    assert!(off.abs() <= 2, "{off} samples");
    let start = (400 + off) as usize;
    assert_eq!(sound.left[start..start + 160_000], through_mu_law(&spoken));
}

#[test]
fn an_unknown_codec_is_said_aloud_and_the_rest_is_heard() {
    let spoken = speech(8_000, 2.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    let mut other = pcmu(1, &spoken, 0);
    for packet in &mut other {
        packet.pt = 97;
    }
    packets.extend(other);
    let mut call = Call::new(0, 2_000 * MS, packets);
    call.open.legs = vec![leg(1, &[(97, "SPEEX", 8_000)])];
    let sound = render(call.bytes());
    assert_eq!(sound.left, through_mu_law(&spoken));
    assert_eq!(peak(&sound.right), 0);
    assert!(sound.plan.has_unsupported());
    assert!(
        sound
            .plan
            .notes()
            .iter()
            .any(|note| note.contains("not supported"))
    );
}

#[test]
fn a_part_of_the_call_and_a_mix_of_both_sides() {
    let (caller, callee) = (speech(8_000, 4.0, 0), speech(8_000, 4.0, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 0));
    let bytes = Call::new(1_000 * MS, 4_000 * MS, packets).bytes();
    let part = Options {
        from_ms: 250,
        to_ms: Some(1_750),
        ..Options::default()
    };
    let sound = render_with(bytes.clone(), &part);
    assert_eq!(sound.left, through_mu_law(&caller)[10_000..22_000]);
    assert_eq!(sound.right, through_mu_law(&callee)[10_000..22_000]);
    let capture = trunkline_sn3::Capture::from_bytes(bytes, "call".as_ref()).unwrap();
    let options = Options {
        layout: ChannelLayout::Mono,
        ..Options::default()
    };
    let plan = trunkline_audio::Plan::new(&capture, &options).unwrap();
    let mut wav = Vec::new();
    trunkline_audio::write_wav(&capture, &plan, &mut wav, &mut |_, _| true).unwrap();
    assert_eq!(wav.len() as u64, plan.wav_bytes());
    let mut reader = hound::WavReader::new(std::io::Cursor::new(&wav)).unwrap();
    assert_eq!(reader.spec().channels, 1);
    let mixed: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let (left, right) = (through_mu_law(&caller), through_mu_law(&callee));
    assert_eq!(mixed.len(), 24_000);
    assert!(
        mixed
            .iter()
            .zip(&left[8_000..])
            .zip(&right[8_000..])
            .all(|((m, l), r)| *m == l.saturating_add(*r))
    );
}

#[test]
fn a_file_played_in_a_loop_is_heard_every_time() {
    // The same SSRC, sequence numbers and timestamps again and again.
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = Vec::new();
    for round in 0..3 {
        packets.extend(pcmu(0, &spoken, round * 4_100 * MS));
    }
    let sound = render(Call::new(0, 12_300 * MS, packets).bytes());
    for round in 0..3 {
        let start = round * 32_800;
        assert_eq!(
            sound.left[start..start + 32_000],
            through_mu_law(&spoken),
            "round {round}"
        );
        assert_eq!(peak(&sound.left[start + 32_000..start + 32_800]), 0);
    }
}

#[test]
fn a_call_too_long_for_a_wav_is_told_before_anything_is_written() {
    // Forty hours between two sentences.
    let call = Call::new(0, 40 * 3_600_000 * MS, pcmu(0, &speech(8_000, 2.0, 0), 0));
    let bytes = call.bytes();
    let capture = trunkline_sn3::Capture::from_bytes(bytes, "call".as_ref()).unwrap();
    let plan = |options: &Options| trunkline_audio::Plan::new(&capture, options);
    let refused = plan(&Options::default());
    assert!(matches!(
        refused,
        Err(trunkline_audio::AudioError::TooLong {
            seconds: 144_000,
            ..
        })
    ));
    assert!(
        plan(&Options {
            rate_hz: Some(4_000),
            ..Options::default()
        })
        .is_ok()
    );
    assert!(
        plan(&Options {
            layout: ChannelLayout::Mono,
            ..Options::default()
        })
        .is_ok()
    );
    assert!(
        plan(&Options {
            any_length: true,
            ..Options::default()
        })
        .is_ok()
    );
}

#[test]
fn facts_that_cannot_be_read_are_a_damage_with_its_place() {
    let whole = Call::new(0, 2_000 * MS, pcmu(0, &speech(8_000, 2.0, 0), 0)).bytes();
    let open = |bytes: &[u8]| {
        let path = std::path::Path::new("call.sn3");
        trunkline_sn3::Capture::from_bytes(bytes.to_vec(), path).expect("a capture")
    };
    assert!(open(&whole).damages().is_empty());
    let json = whole
        .windows(2)
        .position(|two| two == b"{\"")
        .expect("facts");
    let mut bytes = whole;
    bytes[json] ^= 0x04;
    let capture = open(&bytes);
    let [damage] = capture.damages() else {
        panic!("one damage: {:?}", capture.damages())
    };
    assert!((1..=64).contains(&(json as u64 - damage.offset)));
}
