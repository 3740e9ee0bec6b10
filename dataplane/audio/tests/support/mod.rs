//! Captures made for tests, and measures of what comes out of them.
#![allow(dead_code)]

use std::borrow::Cow;
use trunkline_audio::{Options, Plan, PlayCounts, write_wav};
use trunkline_codec::{CodecKind, Format, g711};
use trunkline_sn3::export::ClassicWriter;
use trunkline_sn3::facts::{CallChange, CallClose, CallOpen};
use trunkline_sn3::record::{ClockTriple, PauseRecord};
use trunkline_sn3::{Capture, Frame, FrameKind};

pub const MS: u64 = 1_000_000;

/// A packet of a capture under construction.
#[derive(Debug, Clone)]
pub struct Packet {
    pub dir: u8,
    pub seq: u16,
    pub ts: u32,
    pub wall_ns: u64,
    pub payload: Vec<u8>,
    pub ssrc: u32,
    pub pt: u8,
}

/// Speech-like sound: syllables of harmonics whose pitch wanders, so that no two places are alike.
pub fn speech(rate_hz: u32, seconds: f64, voice: u32) -> Vec<i16> {
    let count = (f64::from(rate_hz) * seconds) as usize;
    let (mut phase, mut slow) = (0.0_f64, 0.0_f64);
    let base = 110.0 + 35.0 * f64::from(voice);
    (0..count)
        .map(|n| {
            let t = n as f64 / f64::from(rate_hz);
            slow += (1.3 + (t * 0.37).sin()) / f64::from(rate_hz);
            let pitch = base + 22.0 * (slow * 5.1).sin() + 9.0 * (t * 1.7).cos();
            phase += pitch / f64::from(rate_hz);
            let syllable = (0.55 + 0.45 * (std::f64::consts::TAU * slow * 2.1).sin()).powi(2);
            let formant = 3.0 + 2.0 * (slow * 3.3).sin();
            let sound: f64 = (1..=12)
                .map(|harmonic| {
                    let h = f64::from(harmonic);
                    let level = 1.0 / (1.0 + (h - formant).powi(2) * 0.4);
                    level * (std::f64::consts::TAU * phase * h).sin()
                })
                .sum();
            (sound * syllable * 5_500.0).clamp(-32_000.0, 32_000.0) as i16
        })
        .collect()
}

/// What is left of a sound after mu-law.
pub fn through_mu_law(sound: &[i16]) -> Vec<i16> {
    sound
        .iter()
        .map(|&s| g711::MU_LAW[usize::from(g711::encode_mu_law(s))])
        .collect()
}

/// PCMU packets of 20 ms, sent from `start_ns` on, captured without delay.
pub fn pcmu(dir: u8, sound: &[i16], start_ns: u64) -> Vec<Packet> {
    packets(dir, sound, start_ns, 160, 20 * MS, |frame| {
        frame.iter().map(|&s| g711::encode_mu_law(s)).collect()
    })
}

/// Packets of `frame` samples (as many ticks) every `interval_ns`.
pub fn packets(
    dir: u8,
    sound: &[i16],
    start_ns: u64,
    frame: usize,
    interval_ns: u64,
    mut encode: impl FnMut(&[i16]) -> Vec<u8>,
) -> Vec<Packet> {
    sound
        .chunks_exact(frame)
        .enumerate()
        .map(|(n, samples)| Packet {
            dir,
            seq: 1_000_u16.wrapping_add(n as u16),
            ts: 50_000_u32.wrapping_add((n * frame) as u32),
            wall_ns: start_ns + n as u64 * interval_ns,
            payload: encode(samples),
            ssrc: 0x1000 + u32::from(dir),
            pt: 0,
        })
        .collect()
}

/// A classic SN3 blob of the packets, in order of capture time.
pub fn blob(mut packets: Vec<Packet>) -> Vec<u8> {
    packets.sort_by_key(|packet| packet.wall_ns);
    let mut bytes = b"SN3".to_vec();
    for packet in &packets {
        bytes.push(packet.dir);
        bytes.extend(packet.seq.to_le_bytes());
        bytes.extend(packet.ts.to_le_bytes());
        bytes.extend(packet.wall_ns.to_le_bytes());
        bytes.extend((packet.payload.len() as u16).to_le_bytes());
        bytes.extend(&packet.payload);
    }
    bytes
}

/// A capture with facts, as the appliance writes it.
pub struct Call {
    pub origin_mono_ns: u64,
    pub open: CallOpen,
    pub changes: Vec<(u64, CallChange)>,
    /// End, ns since the origin.
    pub ended_ns: Option<u64>,
    pub pauses: Vec<(u64, u64)>,
    pub packets: Vec<Packet>,
}

impl Call {
    pub fn new(answered_ns: u64, ended_ns: u64, packets: Vec<Packet>) -> Self {
        let origin_mono_ns = 5_000_000_000_000;
        let open = CallOpen {
            answered_mono_ns: origin_mono_ns + answered_ns,
            ..CallOpen::default()
        };
        Self {
            origin_mono_ns,
            open,
            changes: Vec::new(),
            ended_ns: Some(ended_ns),
            pauses: Vec::new(),
            packets,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let clock = ClockTriple {
            mono_ns: self.origin_mono_ns,
            utc_ns: 1_790_000_000_000_000_000,
            sync: 1,
        };
        let mut frames = vec![
            note(FrameKind::Clock, 0, clock.encode().to_vec()),
            note(
                FrameKind::CallOpen,
                0,
                serde_json::to_vec(&self.open).unwrap(),
            ),
        ];
        for (at, change) in &self.changes {
            frames.push(note(
                FrameKind::CallChange,
                *at,
                serde_json::to_vec(change).unwrap(),
            ));
        }
        for &(from, to) in &self.pauses {
            frames.push(note(
                FrameKind::Pause,
                from,
                PauseRecord { by: 1 }.encode().to_vec(),
            ));
            frames.push(note(
                FrameKind::Resume,
                to,
                PauseRecord { by: 1 }.encode().to_vec(),
            ));
        }
        frames.extend(self.packets.iter().map(|packet| Frame {
            kind: FrameKind::Rtp,
            side: packet.dir,
            media: 0,
            ssrc: Some(packet.ssrc),
            pt: Some(packet.pt),
            marker: false,
            flags: 0,
            seq: packet.seq,
            seq_cycles: 0,
            rtp_ts: packet.ts,
            wall_ns: packet.wall_ns,
            payload: Cow::Owned(packet.payload.clone()),
            offset: 0,
        }));
        frames.sort_by_key(|frame| frame.wall_ns);
        if let Some(ended_ns) = self.ended_ns {
            let close = CallClose {
                ended_mono_ns: self.origin_mono_ns + ended_ns,
                ..CallClose::default()
            };
            frames.push(note(
                FrameKind::CallClose,
                ended_ns,
                serde_json::to_vec(&close).unwrap(),
            ));
        }
        let first = self
            .packets
            .iter()
            .map(|packet| packet.wall_ns)
            .min()
            .unwrap_or(0);
        let mut bytes = Vec::new();
        let mut writer = ClassicWriter::new(&mut bytes, 7, first).unwrap();
        for frame in &frames {
            writer.frame(frame).unwrap();
        }
        writer.finish().unwrap();
        bytes
    }
}

fn note(kind: FrameKind, wall_ns: u64, payload: Vec<u8>) -> Frame<'static> {
    Frame {
        kind,
        side: 0,
        media: 0,
        ssrc: None,
        pt: None,
        marker: false,
        flags: 0,
        seq: 0,
        seq_cycles: 0,
        rtp_ts: 0,
        wall_ns,
        payload: Cow::Owned(payload),
        offset: 0,
    }
}

/// What came out.
pub struct Sound {
    pub rate_hz: u32,
    pub left: Vec<i16>,
    pub right: Vec<i16>,
    pub plan: Plan,
    pub counts: PlayCounts,
}

pub fn render(bytes: Vec<u8>) -> Sound {
    render_with(bytes, &Options::default())
}

pub fn render_with(bytes: Vec<u8>, options: &Options) -> Sound {
    let capture = Capture::from_bytes(bytes, "test.sn3".as_ref()).unwrap();
    let plan = Plan::new(&capture, options).unwrap();
    let mut wav = Vec::new();
    let counts = write_wav(&capture, &plan, &mut wav, &mut |_, _| true).unwrap();
    assert_eq!(
        wav.len() as u64,
        plan.wav_bytes(),
        "the length is known beforehand"
    );
    let mut reader = hound::WavReader::new(std::io::Cursor::new(&wav)).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.bits_per_sample), (2, 16));
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    Sound {
        rate_hz: spec.sample_rate,
        left: samples.iter().step_by(2).copied().collect(),
        right: samples.iter().skip(1).step_by(2).copied().collect(),
        plan,
        counts,
    }
}

/// Signal-to-noise ratio of `got` against `wanted`, dB.
pub fn snr_db(wanted: &[i16], got: &[i16]) -> f64 {
    assert_eq!(wanted.len(), got.len());
    let signal: f64 = wanted.iter().map(|&s| f64::from(s).powi(2)).sum();
    let noise: f64 = wanted
        .iter()
        .zip(got)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum();
    10.0 * (signal / noise.max(1e-9)).log10()
}

/// How many samples later than at `at` the piece `wanted` lies in `sound`, by correlation.
pub fn lag(wanted: &[i16], sound: &[i16], at: usize, reach: usize) -> i64 {
    let score = |start: usize| -> f64 {
        let window = &sound[start..start + wanted.len()];
        let product: f64 = wanted
            .iter()
            .zip(window)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum();
        let energy: f64 = window.iter().map(|&s| f64::from(s).powi(2)).sum();
        product / energy.max(1.0).sqrt()
    };
    let last = (at + reach).min(sound.len() - wanted.len());
    let best = (at.saturating_sub(reach)..=last)
        .max_by(|&a, &b| score(a).total_cmp(&score(b)))
        .unwrap();
    best as i64 - at as i64
}

pub fn peak(sound: &[i16]) -> u16 {
    sound.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0)
}

pub fn rms(sound: &[i16]) -> f64 {
    let power: f64 = sound.iter().map(|&s| f64::from(s).powi(2)).sum();
    (power / sound.len().max(1) as f64).sqrt()
}

pub fn codec(kind: CodecKind) -> Options {
    Options {
        codec: Some(Format::usual(kind)),
        ..Options::default()
    }
}

/// The same numbers on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
