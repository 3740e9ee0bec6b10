//! Decoders against vectors made by others: sox (G.711), ffmpeg's own G.722, libopus and libgsm
//! (through ffmpeg). tests/vectors/README.md tells how.

use trunkline_codec::{CodecKind, Format, g711};

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

#[test]
fn any_bytes_are_survived() {
    let mut state = 7_u64;
    for kind in [
        CodecKind::Pcmu,
        CodecKind::Pcma,
        CodecKind::L16,
        CodecKind::G722,
        CodecKind::Opus,
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
