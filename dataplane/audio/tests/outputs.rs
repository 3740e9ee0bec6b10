//! What is written, read back by programs that are not ours: ffmpeg, ffprobe and sox.

mod support;

use std::path::Path;
use std::process::Command;
use support::*;
use trunkline_audio::{ChannelLayout, Container, Options, Plan, write_sound};
use trunkline_codec::{CodecKind, Format, g711};
use trunkline_sn3::Capture;
use trunkline_sn3::facts::{CallChange, LegFact, ParticipantFact, PayloadFact};

/// Writes a capture to a file as the command does.
fn write(bytes: Vec<u8>, options: &Options, container: Container, path: &Path) -> Plan {
    let capture = Capture::from_bytes(bytes, "test.sn3".as_ref()).unwrap();
    let mut plan = Plan::new(&capture, options).unwrap();
    let rate = container.rate_for(plan.rate_hz());
    if rate != plan.rate_hz() {
        let options = Options {
            rate_hz: Some(rate),
            ..options.clone()
        };
        plan = Plan::new(&capture, &options).unwrap();
    }
    let mut output = Vec::new();
    let written = write_sound(
        &capture,
        &plan,
        container,
        None,
        &mut output,
        &mut |_, _| true,
    )
    .unwrap();
    if let Some((offset, patch)) = written.patch {
        let offset = offset as usize;
        output[offset..offset + patch.len()].copy_from_slice(&patch);
    }
    std::fs::write(path, output).unwrap();
    plan
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {message}"
    );
    assert_eq!(message, "", "{program} has nothing to complain about");
    output.stdout
}

/// Samples of each channel as ffmpeg decodes them.
fn by_ffmpeg(path: &Path, channels: usize, rate_hz: u32) -> Vec<Vec<i16>> {
    let rate = rate_hz.to_string();
    let path = path.display().to_string();
    let raw = run(
        "ffmpeg",
        &["-v", "error", "-i", &path, "-f", "s16le", "-ar", &rate, "-"],
    );
    split(&raw, channels)
}

fn by_sox(path: &Path, channels: usize) -> Vec<Vec<i16>> {
    let path = path.display().to_string();
    let raw = run(
        "sox",
        &[
            "-D", &path, "-t", "raw", "-e", "signed", "-b", "16", "-L", "-",
        ],
    );
    split(&raw, channels)
}

fn split(raw: &[u8], channels: usize) -> Vec<Vec<i16>> {
    let samples: Vec<i16> = raw
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    (0..channels)
        .map(|skip| {
            samples
                .iter()
                .skip(skip)
                .step_by(channels)
                .copied()
                .collect()
        })
        .collect()
}

fn two_way(seconds: f64) -> (Vec<i16>, Vec<i16>, Vec<Packet>) {
    let (caller, callee) = (speech(8_000, seconds, 0), speech(8_000, seconds, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 0));
    (through_mu_law(&caller), through_mu_law(&callee), packets)
}

#[test]
fn ffmpeg_and_sox_read_the_wav_as_it_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("call.wav");
    let (left, right, packets) = two_way(3.0);
    write(blob(packets), &Options::default(), Container::Wav, &path);
    assert_eq!(by_ffmpeg(&path, 2, 8_000), [left.clone(), right.clone()]);
    assert_eq!(by_sox(&path, 2), [left, right]);
}

#[test]
fn flac_is_lossless_at_every_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("call.flac");
    for ms in [1, 3, 20, 512, 513, 3_000, 20_001] {
        let (left, right, packets) = two_way(21.0);
        let options = Options {
            to_ms: Some(ms),
            ..Options::default()
        };
        write(blob(packets), &options, Container::Flac, &path);
        let count = ms as usize * 8;
        let wanted = [left[..count].to_vec(), right[..count].to_vec()];
        assert_eq!(by_ffmpeg(&path, 2, 8_000), wanted, "{ms} ms");
        assert_eq!(by_sox(&path, 2), wanted, "{ms} ms: the digest fits as well");
    }
}

#[test]
fn ogg_opus_has_the_length_and_the_place_of_the_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("call.opus");
    for layout in [ChannelLayout::Stereo, ChannelLayout::Mono] {
        let (left, _, packets) = two_way(4.0);
        let options = Options {
            layout,
            ..Options::default()
        };
        let mono = layout == ChannelLayout::Mono;
        let packets = if mono {
            pcmu(0, &speech(8_000, 4.0, 0), 0)
        } else {
            packets
        };
        write(blob(packets), &options, Container::OggOpus, &path);
        let heard = by_ffmpeg(&path, if mono { 1 } else { 2 }, 8_000);
        assert_eq!(heard[0].len(), 32_000);
        let off = lag(&left[12_000..16_000], &heard[0], 12_000, 200);
        assert!(off.abs() <= 2, "{layout:?}: {off} samples");
        let quality = snr_db(&left[12_000..16_000], &heard[0][12_000..16_000]);
        assert!(quality > 8.0, "{layout:?}: {quality:.1} dB");
    }
}

#[test]
fn kept_g711_is_the_octets_that_were_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("call.wav");
    for (law, encode) in [
        (CodecKind::Pcmu, g711::encode_mu_law as fn(i16) -> u8),
        (CodecKind::Pcma, g711::encode_a_law),
    ] {
        let spoken = speech(8_000, 2.0, 0);
        let mut octets: Vec<u8> = spoken.iter().map(|&s| encode(s)).collect();
        // Every octet there is, negative zero among them.
        octets[..256].copy_from_slice(&(0..=255).collect::<Vec<u8>>());
        let mut sent = pcmu(0, &spoken, 0);
        for (packet, octets) in sent.iter_mut().zip(octets.chunks(160)) {
            packet.payload = octets.to_vec();
        }
        let options = Options {
            keep: true,
            codec: Some(Format::usual(law)),
            ..Options::default()
        };
        write(blob(sent), &options, Container::Wav, &path);
        let file = std::fs::read(&path).unwrap();
        let data = file.windows(4).position(|w| w == b"data").unwrap() + 8;
        let left: Vec<u8> = file[data..].iter().step_by(2).copied().collect();
        assert_eq!(left, octets, "{law:?}");
        let table = if law == CodecKind::Pcmu {
            &g711::MU_LAW
        } else {
            &g711::A_LAW
        };
        let wanted: Vec<i16> = octets.iter().map(|&o| table[usize::from(o)]).collect();
        assert_eq!(by_ffmpeg(&path, 2, 8_000)[0], wanted);
        assert_eq!(by_sox(&path, 2)[0], wanted);
    }
}

#[test]
fn kept_g711_follows_a_drifting_clock_by_slips_in_silence() {
    let mut spoken = speech(8_000, 10.0, 0);
    spoken[72_000..80_000].fill(0);
    let coded: Vec<u8> = spoken.iter().map(|&s| g711::encode_mu_law(s)).collect();
    let drift = 200;
    let packets = (0..15_000_u64).map(|n| {
        let sent = n as i64 * 20_000_000;
        let place = (n as usize % 500) * 160;
        Packet {
            dir: 0,
            seq: n as u16,
            ts: (n * 160) as u32,
            wall_ns: (sent + sent / 1_000_000 * drift) as u64,
            payload: coded[place..place + 160].to_vec(),
            ssrc: 0,
            pt: 0,
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("call.wav");
    let options = Options {
        keep: true,
        ..Options::default()
    };
    write(blob(packets.collect()), &options, Container::Wav, &path);
    let heard = &by_ffmpeg(&path, 2, 8_000)[0];
    let wanted = through_mu_law(&spoken);
    for ten_seconds in 0..30_i64 {
        let nominal = ten_seconds * 80_000;
        let at = nominal + nominal * drift / 1_000_000;
        let off = lag(&wanted[4_000..8_000], heard, at as usize + 4_000, 60);
        assert!(off.abs() <= 40, "{ten_seconds}0 s: {off} samples");
        let start = (at + off) as usize;
        assert!(
            heard[start + 400..start + 70_000] == wanted[400..70_000],
            "{ten_seconds}0 s: speech stays as it was sent"
        );
    }
}

#[test]
fn what_is_not_one_g711_cannot_be_kept_and_says_why() {
    let (_, _, packets) = two_way(1.0);
    let capture = Capture::from_bytes(blob(packets), "x".as_ref()).unwrap();
    let options = Options {
        keep: true,
        codec: Some(Format::usual(CodecKind::G722)),
        ..Options::default()
    };
    let error = Plan::new(&capture, &options).unwrap_err().to_string();
    assert!(error.contains("G722"), "{error}");
}

#[test]
fn each_party_has_a_channel_of_its_own_when_asked_for() {
    let voices = [0, 1, 2].map(|voice| speech(8_000, 2.0, voice));
    let mut packets = pcmu(0, &[voices[0].clone(), voices[0].clone()].concat(), 0);
    packets.extend(pcmu(1, &voices[1], 0));
    let mut transferred = pcmu(1, &voices[2], 2_000 * MS);
    for packet in &mut transferred {
        packet.ssrc = 0x77;
        packet.seq = packet.seq.wrapping_add(9_000);
    }
    packets.extend(transferred);
    let mut call = Call::new(0, 4_000 * MS, packets);
    let participant = |uri: &str, channel, from: &str| ParticipantFact {
        uri: uri.to_owned(),
        channel,
        from: from.to_owned(),
        ..ParticipantFact::default()
    };
    // The clock of the capture starts at 2026-09-21T14:13:20 UTC.
    call.open.participants = vec![
        participant("sip:caller@a", 0, "2026-09-21T14:13:20.000Z"),
        participant("sip:agent@a", 1, "2026-09-21T14:13:20.000Z"),
    ];
    let mut all = call.open.participants.clone();
    all.push(participant("sip:desk@a", 1, "2026-09-21T14:13:22.000Z"));
    call.changes.push((
        2_000 * MS,
        CallChange {
            participants: Some(all),
            ..CallChange::default()
        },
    ));
    let options = Options {
        layout: ChannelLayout::Parties,
        ..Options::default()
    };
    let directory = tempfile::tempdir().unwrap();
    for (name, container) in [("call.wav", Container::Wav), ("call.flac", Container::Flac)] {
        let path = directory.path().join(name);
        let plan = write(call.bytes(), &options, container, &path);
        let parties: Vec<&str> = plan.channel_list().iter().map(|c| &*c.party).collect();
        assert_eq!(parties, ["sip:caller@a", "sip:agent@a", "sip:desk@a"]);
        let heard = by_sox(&path, 3);
        assert_eq!(by_ffmpeg(&path, 3, 8_000), heard);
        assert!(heard[1][..16_000] == through_mu_law(&voices[1]));
        assert_eq!(peak(&heard[1][16_000..]), 0);
        assert_eq!(peak(&heard[2][..16_000]), 0);
        assert!(heard[2][16_000..] == through_mu_law(&voices[2]));
    }
}

fn leg(codec: CodecKind, fmtp: &str) -> LegFact {
    let format = Format::usual(codec);
    LegFact {
        kind: "audio".to_owned(),
        payloads: vec![PayloadFact {
            pt: 96,
            codec: codec.name().to_owned(),
            clock_hz: format.clock_hz,
            channels: 1,
            fmtp: fmtp.to_owned(),
        }],
        ..LegFact::default()
    }
}

#[test]
fn every_codec_comes_out_at_its_place() {
    for (kind, fmtp, delay_max, quality_min) in [
        (CodecKind::G729, "", 60, 3.0),
        (CodecKind::Amr, "octet-align=1", 60, 5.0),
        (CodecKind::Amr, "", 60, 5.0),
        (CodecKind::AmrWb, "octet-align=1;crc=1", 120, 6.0),
        (CodecKind::AmrWb, "", 120, 6.0),
    ] {
        let format = Format::usual(kind).with_parameters(fmtp);
        let rate = format.rate_hz();
        let spoken = speech(rate, 4.0, 0);
        let mut encoder = format.encoder().unwrap();
        let frame = rate as usize / 50;
        let encode = |samples: &[i16]| {
            let mut payload = Vec::new();
            encoder.encode(samples, &mut payload).unwrap();
            payload
        };
        let mut sent = packets(0, &spoken, 0, frame, 20 * MS, encode);
        for packet in &mut sent {
            packet.pt = 96;
        }
        // A loss in the middle moves nothing.
        sent.remove(120);
        let mut call = Call::new(0, 4_000 * MS, sent);
        call.open.legs = vec![leg(kind, fmtp)];
        let sound = render(call.bytes());
        assert_eq!((sound.rate_hz, sound.left.len()), (rate, spoken.len()));
        let at = rate as usize * 3;
        let piece = &spoken[at..at + rate as usize / 2];
        let delay = lag(piece, &sound.left, at, 400);
        assert!((0..=delay_max).contains(&delay), "{kind:?}: {delay}");
        let start = at + delay as usize;
        let quality = snr_db(piece, &sound.left[start..start + piece.len()]);
        assert!(quality > quality_min, "{kind:?} {fmtp}: {quality:.1} dB");
    }
}

#[test]
fn a_described_silence_is_filled_by_the_codecs_own_noise() {
    // A second of speech, a description of silence as other encoders make it
    // (codec/tests/vectors/amr_dtx.packets, g729b.packets), nothing, and speech again. AMR describes
    // each silence anew eight times a second and its decoder falls silent without that; G.729 does not.
    let spoken = speech(8_000, 1.0, 0);
    for (kind, fmtp, seconds, silence) in [
        (
            CodecKind::Amr,
            "octet-align=1",
            1_u32,
            &[0xF0, 0x44, 0x26, 0xd1, 0xfc, 0xb3, 0x9e][..],
        ),
        (CodecKind::G729, "annexb=yes", 60, &G729_SILENCE),
    ] {
        let format = Format::usual(kind).with_parameters(fmtp);
        let mut encoder = format.encoder().unwrap();
        let encode = |samples: &[i16]| {
            let mut payload = Vec::new();
            encoder.encode(samples, &mut payload).unwrap();
            payload
        };
        let mut sent = packets(0, &spoken, 0, 160, 20 * MS, encode);
        let mut again = sent.clone();
        let last = sent.len() - 1;
        sent[last].payload = silence.to_vec();
        for packet in &mut again {
            packet.seq += 50;
            packet.ts += (seconds + 1) * 8_000;
            packet.wall_ns += u64::from(seconds + 1) * 1_000 * MS;
        }
        sent.extend(again);
        for packet in &mut sent {
            packet.pt = 96;
        }
        let mut call = Call::new(0, u64::from(seconds + 2) * 1_000 * MS, sent);
        call.open.legs = vec![leg(kind, fmtp)];
        let sound = render(call.bytes());
        let again_at = (seconds as usize + 1) * 8_000;
        assert_eq!(sound.left.len(), again_at + 8_000);
        for from in (9_000..again_at - 1_000).step_by(1_000) {
            let noise = rms(&sound.left[from..from + 1_000]);
            assert!((0.5..1_000.0).contains(&noise), "{kind:?} {from}: {noise}");
        }
        assert!(rms(&sound.left[again_at + 1_000..]) > 1_000.0, "{kind:?}");
        assert_eq!(sound.plan.streams()[0].lost, 0);
    }
}

/// Noise of about -50 dB by libbcg729.
const G729_SILENCE: [u8; 2] = [0x34, 0x98];
