//! What the first SN3 decoder got wrong: each defect is a test of ours, judged by where the sound
//! lies, in samples, and by its signal-to-noise ratio.

mod support;

use support::*;
use trunkline_codec::{CodecKind, Format, g711, telephone_event::EventReport};

#[test]
fn defect_01_both_legs_share_one_origin() {
    let (caller, callee) = (speech(8_000, 4.0, 0), speech(8_000, 3.0, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 730 * MS));
    let sound = render(blob(packets));
    assert_eq!(sound.left[..32_000], through_mu_law(&caller)[..]);
    assert_eq!(peak(&sound.right[..5_840]), 0);
    assert_eq!(
        sound.right[5_840..5_840 + 24_000],
        through_mu_law(&callee)[..]
    );
    assert_eq!(sound.left.len(), 32_000);
}

#[test]
fn defect_02_mu_law_has_the_values_of_the_itu() {
    let octets: Vec<u8> = (0..=255).cycle().take(1_600).collect();
    let packets = (0..10).map(|n| Packet {
        dir: 0,
        seq: n,
        ts: u32::from(n) * 160,
        wall_ns: u64::from(n) * 20 * MS,
        payload: octets[usize::from(n) * 160..][..160].to_vec(),
        ssrc: 0,
        pt: 0,
    });
    let sound = render(blob(packets.collect()));
    assert_eq!(sound.left[0xFF], 0);
    assert_eq!(sound.left[0xE7], 260);
    assert_eq!(sound.left[0xC0], 1_884);
    assert_eq!(sound.left[0x80], 32_124);
    assert_eq!(sound.left[0x00], -32_124);
}

#[test]
fn defect_03_g722_is_g722_and_keeps_its_length() {
    let spoken = speech(16_000, 4.0, 0);
    for step in [160, 320] {
        let mut encoder = Format::usual(CodecKind::G722).encoder().unwrap();
        let mut wide = packets(0, &spoken, 0, 320, 20 * MS, |frame| {
            let mut payload = Vec::new();
            encoder.encode(frame, &mut payload).unwrap();
            payload
        });
        for (n, packet) in wide.iter_mut().enumerate() {
            packet.ts = n as u32 * step;
        }
        let sound = render_with(blob(wide), &codec(CodecKind::G722));
        assert_eq!(
            (sound.rate_hz, sound.left.len()),
            (16_000, 64_000),
            "steps of {step}"
        );
        // The two filter banks of G.722 delay by 22 samples.
        let quality = snr_db(&spoken[1_000..60_000], &sound.left[1_022..60_022]);
        assert!(quality > 20.0, "steps of {step}: {quality:.1} dB");
        assert_eq!(lag(&spoken[50_000..54_000], &sound.left, 50_000, 200), 22);
    }
}

#[test]
fn defect_04_order_survives_the_wrap_and_a_transfer() {
    let spoken = speech(8_000, 6.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for (n, packet) in packets.iter_mut().enumerate() {
        let n = n as u32;
        if n < 200 {
            packet.seq = 65_450_u16.wrapping_add(n as u16);
            packet.ts = 4_294_960_000_u32.wrapping_add(n * 160);
        } else {
            packet.seq = 300 + (n - 200) as u16;
            packet.ts = 77 + (n - 200) * 160;
        }
    }
    let sound = render(blob(packets));
    assert_eq!(sound.left, through_mu_law(&spoken));
}

#[test]
fn defect_05_opus_is_decoded() {
    let spoken = speech(48_000, 4.0, 0);
    let mut encoder = Format::usual(CodecKind::Opus).encoder().unwrap();
    let opus = packets(0, &spoken, 0, 960, 20 * MS, |frame| {
        let mut payload = Vec::new();
        encoder.encode(frame, &mut payload).unwrap();
        payload
    });
    // Without being told: sizes, steps and the packets' own durations leave only Opus.
    let sound = render(blob(opus));
    assert_eq!((sound.rate_hz, sound.left.len()), (48_000, 192_000));
    assert!(
        sound.plan.notes().iter().any(|note| note.contains("opus")),
        "said aloud"
    );
    let delay = lag(&spoken[96_000..115_200], &sound.left, 96_000, 600);
    assert!(
        (0..=480).contains(&delay),
        "the codec's own delay only: {delay}"
    );
    let shifted = &sound.left[(96_000 + delay) as usize..(115_200 + delay) as usize];
    assert!(snr_db(&spoken[96_000..115_200], shifted) > 3.0);
}

#[test]
fn defect_06_a_lost_packet_moves_nothing() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    packets.remove(70);
    packets.remove(120);
    packets.drain(150..158);
    let sound = render(blob(packets));
    let wanted = through_mu_law(&spoken);
    assert_eq!(sound.left.len(), wanted.len());
    for (from, to) in [
        (0, 11_200),
        (11_360, 19_360),
        (19_520, 24_320),
        (25_600, 32_000),
    ] {
        assert_eq!(
            sound.left[from..to],
            wanted[from..to],
            "samples {from} to {to}"
        );
    }
    assert!(
        peak(&sound.left[11_200..11_360]) > 0,
        "one lost packet is concealed"
    );
}

#[test]
fn defect_07_a_late_burst_is_put_in_its_place() {
    let spoken = speech(8_000, 6.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for packet in &mut packets[100..115] {
        packet.wall_ns = 115 * 20 * MS;
    }
    let sound = render(blob(packets));
    assert_eq!(sound.left, through_mu_law(&spoken));
}

#[test]
fn defect_08_duplicates_are_heard_once() {
    let spoken = speech(8_000, 4.0, 0);
    let packets = pcmu(0, &spoken, 0);
    let twice: Vec<Packet> = packets
        .iter()
        .flat_map(|p| [p.clone(), p.clone()])
        .collect();
    let sound = render(blob(twice));
    assert_eq!(sound.left, through_mu_law(&spoken));
    let stream = &sound.plan.streams()[0];
    assert_eq!(
        (stream.duplicates, stream.lost, stream.expected),
        (200, 0, 200)
    );
}

#[test]
fn defect_09_keys_are_listed_and_not_heard_as_noise() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    // Key 5 from 1 s to 1.16 s in place of the sound, reports every 20 ms, the last one thrice.
    let start = packets[50].ts;
    for (n, packet) in packets[50..58].iter_mut().enumerate() {
        let duration = (n as u16 + 1) * 160;
        let report = EventReport {
            event: 5,
            end: n >= 7,
            volume: 10,
            duration,
        };
        packet.payload = report.encode().to_vec();
        packet.ts = start;
    }
    let mut extra = vec![packets[57].clone(); 2];
    for (n, packet) in extra.iter_mut().enumerate() {
        packet.wall_ns += n as u64 + 1;
        packet.seq += n as u16 + 1;
    }
    for packet in &mut packets[58..] {
        packet.seq += 2;
    }
    packets.extend(extra);
    let sound = render(blob(packets.clone()));
    let wanted = through_mu_law(&spoken);
    assert_eq!(sound.left[..8_000], wanted[..8_000]);
    assert_eq!(
        peak(&sound.left[8_000..9_280]),
        0,
        "no event is taken for sound"
    );
    assert_eq!(sound.left[9_280..], wanted[9_280..]);
    let events = sound.plan.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((event.key, event.side, event.reports), (Some('5'), 0, 10));
    assert_eq!((event.start_ms, event.duration_ms), (1_000, 160));
    let options = trunkline_audio::Options {
        tones: true,
        ..Default::default()
    };
    let tones = render_with(blob(packets), &options);
    assert!(
        rms(&tones.left[8_100..9_200]) > 1_000.0,
        "audible when asked for"
    );
}

#[test]
fn defect_10_reordered_packets_are_put_right() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for n in (10..190).step_by(7) {
        let late = packets[n + 2].wall_ns + MS;
        packets[n].wall_ns = late;
    }
    let sound = render(blob(packets));
    assert_eq!(sound.left, through_mu_law(&spoken));
    assert!(sound.plan.streams()[0].reordered > 20);
}

#[test]
fn defect_11_clock_drift_is_corrected_over_an_hour() {
    // Ten seconds of sound over and over: where they lie near the end tells the drift.
    let spoken = speech(8_000, 10.0, 0);
    let coded: Vec<u8> = spoken.iter().map(|&s| g711::encode_mu_law(s)).collect();
    let drifts = [-200_i64, 200];
    let mut dice = Dice(9);
    let mut packets = Vec::new();
    for n in 0..180_000_u64 {
        for dir in 0..2 {
            let place = (n as usize % 500) * 160;
            let mut sent = n as i64 * 20_000_000;
            // Every five minutes 300 ms come at once; one packet in twenty is lost.
            if n % 15_000 < 15 {
                sent += (15 - n as i64 % 15_000) * 20_000_000;
            }
            if n % 500 >= 30 && dice.below(20) == 0 {
                continue;
            }
            let captured = sent + sent / 1_000_000 * drifts[usize::from(dir)];
            packets.push(Packet {
                dir,
                seq: n as u16,
                ts: (n * 160) as u32,
                wall_ns: captured as u64 + dice.below(15 * MS),
                payload: coded[place..place + 160].to_vec(),
                ssrc: 0,
                pt: 0,
            });
        }
    }
    let sound = render(blob(packets));
    for (drift, channel) in drifts.into_iter().zip([&sound.left, &sound.right]) {
        for minutes in [10, 30, 59] {
            let position = minutes * 60 * 8_000_i64;
            let nominal = position + position * drift / 1_000_000;
            let off = lag(&spoken[..4_000], channel, nominal as usize, 400);
            assert!(
                off.abs() <= 40,
                "{drift} ppm, minute {minutes}: {off} samples"
            );
        }
    }
    // What drift takes or gives is spread over all the sound: no silence is put into it.
    let longest_silence = |sound: &[i16]| {
        let runs = sound.split(|sample| *sample != 0).map(<[i16]>::len);
        runs.max().unwrap_or(0)
    };
    let usual = longest_silence(&through_mu_law(&spoken));
    for channel in [&sound.left, &sound.right] {
        // The two clocks end 1.44 s apart.
        let found = longest_silence(&channel[..channel.len() - 16_000]);
        // A packet lost amid the quietest of syllables may be concealed by nothing.
        assert!(
            found <= usual + 160 + 8,
            "{found} samples of silence, {usual} usual"
        );
    }
    for stream in sound.plan.streams() {
        let drift = drifts[usize::from(stream.side)];
        assert!(
            (stream.drift_ppm - drift as f64).abs() < 2.0,
            "{}",
            stream.drift_ppm
        );
    }
}

#[test]
fn defect_12_losses_are_concealed_without_clicks() {
    let spoken = speech(8_000, 8.0, 0);
    let wanted = through_mu_law(&spoken);
    let loud = |sound: &[i16]| {
        sound
            .windows(2)
            .map(|w| w[0].abs_diff(w[1]))
            .max()
            .unwrap_or(0)
    };
    let mut dice = Dice(3);
    let mut packets = pcmu(0, &spoken, 0);
    packets.retain(|_| dice.below(100) >= 5);
    let lost = 400 - packets.len();
    assert!(lost > 10);
    let mut holes = wanted.clone();
    for n in 0..400_u16 {
        if !packets.iter().any(|packet| packet.seq == 1_000 + n) {
            holes[usize::from(n) * 160..][..160].fill(0);
        }
    }
    let received: Vec<usize> = packets.iter().map(|p| usize::from(p.seq) - 1_000).collect();
    let sound = render(blob(packets));
    let (concealed, silent) = (snr_db(&wanted, &sound.left), snr_db(&wanted, &holes));
    assert!(
        concealed > silent + 1.0,
        "{concealed:.1} dB against {silent:.1} dB of bare holes"
    );
    for &n in &received {
        let packet = n * 160..(n + 1) * 160;
        assert_eq!(
            sound.left[packet.clone()],
            wanted[packet],
            "packet {n} is heard as it came"
        );
    }
    // No step at an edge is greater than the sound itself makes nearby.
    for n in (1..400).filter(|n| !received.contains(n)) {
        for edge in [n * 160, (n + 1) * 160] {
            let around = edge.saturating_sub(240)..(edge + 240).min(wanted.len());
            let step = loud(&sound.left[edge - 1..(edge + 1).min(wanted.len())]);
            let usual = loud(&wanted[around]);
            assert!(
                step <= usual + usual / 2 + 100,
                "sample {edge}: {step} against {usual}"
            );
        }
    }
    assert!(sound.counts.concealed > 0);
}

#[test]
fn defect_12_comfort_noise_fills_the_silence_it_describes() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    packets.drain(101..150);
    packets[100].payload = vec![50];
    for packet in &mut packets[101..] {
        packet.seq -= 49;
    }
    let sound = render(blob(packets));
    let noise = &sound.left[16_000..24_000];
    let level = 20.0 * (rms(noise) / 32_768.0).log10();
    assert!((level + 50.0).abs() < 2.0, "{level:.1} dBov");
    assert_eq!(sound.left[24_000..], through_mu_law(&spoken)[24_000..]);
}

#[test]
fn defect_13_the_length_is_that_of_the_call() {
    let mut packets = pcmu(0, &speech(8_000, 5.0, 0), 0);
    packets.extend(pcmu(1, &speech(8_000, 4.0, 1), 2_000 * MS));
    let sound = render(blob(packets));
    assert_eq!((sound.left.len(), sound.right.len()), (48_000, 48_000));
    assert_eq!(
        peak(&sound.left[40_000..]),
        0,
        "both channels are equally long"
    );
}
