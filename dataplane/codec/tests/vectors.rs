//! Decoders against vectors made by others: sox (G.711), ffmpeg's own G.722, libopus and libgsm
//! (through ffmpeg). tests/vectors/README.md tells how.

use trunkline_codec::{CodecKind, Format, Framing, g711};

fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

fn snr_db(wanted: &[i16], got: &[i16]) -> f64 {
    assert_eq!(wanted.len(), got.len());
    let signal: f64 = wanted.iter().map(|&s| f64::from(s).powi(2)).sum();
    let pairs = wanted.iter().zip(got);
    let noise: f64 = pairs
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum();
    10.0 * (signal / noise.max(1e-9)).log10()
}

#[test]
fn g711_is_that_of_sox_octet_by_octet() {
    assert_eq!(
        g711::MU_LAW.as_slice(),
        samples(include_bytes!("vectors/mu_law.pcm"))
    );
    assert_eq!(
        g711::A_LAW.as_slice(),
        samples(include_bytes!("vectors/a_law.pcm"))
    );
}

#[test]
fn g722_is_that_of_ffmpeg() {
    let mut decoder = Format::usual(CodecKind::G722).decoder().unwrap();
    let mut output = Vec::new();
    for payload in include_bytes!("vectors/g722.g722").chunks(160) {
        decoder.decode(payload, &mut output).unwrap();
    }
    let wanted = samples(include_bytes!("vectors/g722.pcm"));
    let quality = snr_db(&wanted, &output);
    assert!(quality > 60.0, "{quality:.1} dB");
}

#[test]
fn what_we_encode_as_g722_ffmpeg_would_encode_as_well() {
    let voice = samples(include_bytes!("vectors/g722_input.pcm"));
    let mut octets = Vec::new();
    Format::usual(CodecKind::G722)
        .encoder()
        .unwrap()
        .encode(&voice, &mut octets)
        .unwrap();
    let mut ours = Vec::new();
    Format::usual(CodecKind::G722)
        .decoder()
        .unwrap()
        .decode(&octets, &mut ours)
        .unwrap();
    let theirs = samples(include_bytes!("vectors/g722.pcm"));
    let quality = |decoded: &[i16]| snr_db(&voice[200..6_000], &decoded[222..6_022]);
    assert!(
        quality(&ours) > quality(&theirs) - 1.0,
        "{:.1} dB",
        quality(&ours)
    );
}

#[test]
fn opus_is_that_of_libopus() {
    let mut decoder = Format::usual(CodecKind::Opus).decoder().unwrap();
    let mut output = Vec::new();
    let mut rest = &include_bytes!("vectors/opus.packets")[..];
    while let [low, high, after @ ..] = rest {
        let (packet, next) = after.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        decoder.decode(packet, &mut output).unwrap();
        rest = next;
    }
    // ffmpeg leaves out the pre-skip of 312 samples and what fills the last packet.
    let wanted = samples(include_bytes!("vectors/opus.pcm"));
    let quality = snr_db(&wanted, &output[312..312 + wanted.len()]);
    assert!(quality > 50.0, "{quality:.1} dB");
}

#[test]
fn gsm_is_that_of_libgsm_bit_by_bit() {
    let mut decoder = Format::usual(CodecKind::Gsm).decoder().unwrap();
    let mut output = Vec::new();
    decoder
        .decode(include_bytes!("vectors/gsm.gsm"), &mut output)
        .unwrap();
    assert_eq!(output, samples(include_bytes!("vectors/gsm.pcm")));
}

/// Frames, each after its length.
fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while let [length, after @ ..] = rest {
        let (frame, next) = after.split_at(usize::from(*length));
        frames.push(frame);
        rest = next;
    }
    frames
}

#[test]
fn g729_is_that_of_two_other_decoders() {
    let mut decoder = Format::usual(CodecKind::G729).decoder().unwrap();
    let mut output = Vec::new();
    for payload in include_bytes!("vectors/g729.g729").chunks(20) {
        decoder.decode(payload, &mut output).unwrap();
    }
    let quality = snr_db(&samples(include_bytes!("vectors/g729.pcm")), &output);
    assert!(quality > 30.0, "libbcg729: {quality:.1} dB");
    // Neither of the two follows the fixed-point arithmetic of the specification bit by bit, and
    // ffmpeg has the longer filter of the main body, we that of annex A.
    let quality = snr_db(&samples(include_bytes!("vectors/g729_ffmpeg.pcm")), &output);
    assert!(quality > 20.0, "ffmpeg: {quality:.1} dB");
}

#[test]
fn g729_annex_b_makes_the_noise_that_was_described() {
    let mut decoder = Format::usual(CodecKind::G729).decoder().unwrap();
    let mut output = Vec::new();
    let mut silent = 0;
    for frame in frames(include_bytes!("vectors/g729b.packets")) {
        if frame.is_empty() {
            silent += 1;
            assert_eq!(decoder.idle(80, &mut output), 80);
        } else {
            decoder.decode(frame, &mut output).unwrap();
        }
    }
    assert!(silent > 20);
    let wanted = samples(include_bytes!("vectors/g729b.pcm"));
    let quality = snr_db(&wanted, &output);
    assert!(quality > 25.0, "{quality:.1} dB");
    // All through the silence the noise is as loud as libbcg729's: frames 98 to 149 were not sent.
    let level = |sound: &[i16]| {
        let power: f64 = sound.iter().map(|&s| f64::from(s).powi(2)).sum();
        10.0 * (power / sound.len() as f64).log10()
    };
    for tenth in (8_000..11_600).step_by(800) {
        let (wanted, made) = (&wanted[tenth..tenth + 800], &output[tenth..tenth + 800]);
        let off = level(made) - level(wanted);
        assert!(off.abs() < 3.0, "from sample {tenth}: {off:.1} dB off");
    }
}

/// Storage format to RTP payloads with octets aligned (RFC 4867 sections 4.4 and 5.3).
fn decode_amr(kind: CodecKind, stored: &[u8]) -> Vec<i16> {
    let mut decoder = Format {
        framing: Framing::of("octet-align=1"),
        ..Format::usual(kind)
    }
    .decoder()
    .unwrap();
    let mut output = Vec::new();
    for frame in frames(stored) {
        let payload = [&[0xF0], frame].concat();
        decoder.decode(&payload, &mut output).unwrap();
    }
    output
}

#[test]
fn amr_is_that_of_opencore_in_all_modes_and_silences() {
    for (packets, wanted) in [
        (
            &include_bytes!("vectors/amr.packets")[..],
            &include_bytes!("vectors/amr.pcm")[..],
        ),
        (
            include_bytes!("vectors/amr_dtx.packets"),
            include_bytes!("vectors/amr_dtx.pcm"),
        ),
    ] {
        let output = decode_amr(CodecKind::Amr, packets);
        let quality = snr_db(&samples(wanted), &output);
        assert!(quality > 60.0, "{quality:.1} dB");
    }
}

#[test]
fn amr_wb_is_that_of_opencore_in_all_modes_and_silences() {
    for (packets, wanted) in [
        (
            &include_bytes!("vectors/amrwb.packets")[..],
            &include_bytes!("vectors/amrwb.pcm")[..],
        ),
        (
            include_bytes!("vectors/amrwb_dtx.packets"),
            include_bytes!("vectors/amrwb_dtx.pcm"),
        ),
    ] {
        let output = decode_amr(CodecKind::AmrWb, packets);
        let quality = snr_db(&samples(wanted), &output);
        assert!(quality > 60.0, "{quality:.1} dB");
    }
}

#[test]
fn what_is_not_supported_says_what_is_missing() {
    let error = Format::usual(CodecKind::Ilbc).decoder().err().unwrap();
    assert!(
        error.to_string().contains("iLBC: not supported: a decoder"),
        "{error}"
    );
    let interleaved = Format::usual(CodecKind::Amr).with_parameters("interleaving=4");
    let error = interleaved.decoder().err().unwrap();
    assert!(error.to_string().contains("interleaved"), "{error}");
}

#[test]
fn any_bytes_are_survived() {
    let mut state = 7_u64;
    for kind in [
        CodecKind::Pcmu,
        CodecKind::Pcma,
        CodecKind::L16,
        CodecKind::G722,
        CodecKind::Opus,
        CodecKind::Gsm,
        CodecKind::G729,
        CodecKind::Amr,
        CodecKind::AmrWb,
    ] {
        let format = Format::usual(kind);
        let mut decoder = format.decoder().unwrap();
        let mut output = Vec::new();
        for round in 0..3_000_usize {
            let length = round * 7 % 400;
            let payload: Vec<u8> = (0..length)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            output.clear();
            let promised = format.samples(&payload);
            if let Ok(count) = decoder.decode(&payload, &mut output) {
                assert_eq!(count, output.len());
                assert_eq!(promised, Some(count), "{kind:?}: {length} bytes");
            }
            if round % 50 == 0 {
                decoder.conceal(960, Some(&payload), &mut output);
            }
        }
    }
}
