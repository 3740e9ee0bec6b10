//! The same payloads as a capture and as files that ffmpeg and sox read.

use crate::Outcome;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use trunkline_codec::{CodecKind, Format};

/// Seconds of sound that repeat.
const LOOP_S: u32 = 20;
const PACKETS_A_SECOND: u32 = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    G711,
    G722,
    Opus,
}

impl Codec {
    pub const fn name(self) -> &'static str {
        match self {
            Self::G711 => "G.711",
            Self::G722 => "G.722",
            Self::Opus => "Opus",
        }
    }

    pub const fn kind(self) -> CodecKind {
        match self {
            Self::G711 => CodecKind::Pcmu,
            Self::G722 => CodecKind::G722,
            Self::Opus => CodecKind::Opus,
        }
    }

    /// What ffmpeg calls the file's format; Opus lies in Ogg.
    const fn demuxer(self) -> Option<&'static str> {
        match self {
            Self::G711 => Some("mulaw"),
            Self::G722 => Some("g722"),
            Self::Opus => None,
        }
    }
}

/// Files of one codec.
pub struct Inputs {
    pub codec: Codec,
    pub capture: PathBuf,
    pub output: PathBuf,
    /// Caller and callee.
    streams: [PathBuf; 2],
    minutes: u32,
}

impl Inputs {
    pub fn create(codec: Codec, minutes: u32, directory: &Path) -> Outcome<Self> {
        let name = codec.name();
        let inputs = Self {
            codec,
            capture: directory.join(format!("{name}.sn3")),
            output: directory.join(format!("{name}.wav")),
            streams: [0, 1].map(|side| directory.join(format!("{name}.{side}"))),
            minutes,
        };
        let payloads = match codec {
            Codec::Opus => [inputs.opus(0)?, inputs.opus(1)?],
            _ => [encode(codec, 0)?, encode(codec, 1)?],
        };
        inputs.write_capture(&payloads)?;
        if codec != Codec::Opus {
            for (path, payloads) in inputs.streams.iter().zip(&payloads) {
                let mut file = BufWriter::new(std::fs::File::create(path)?);
                for packet in 0..inputs.packets() {
                    file.write_all(&payloads[packet as usize % payloads.len()])?;
                }
                file.flush()?;
            }
        }
        Ok(inputs)
    }

    fn packets(&self) -> u32 {
        self.minutes * 60 * PACKETS_A_SECOND
    }

    /// A classic blob: both sides speak all the time.
    fn write_capture(&self, payloads: &[Vec<Vec<u8>>; 2]) -> Outcome<()> {
        let ticks = Format::usual(self.codec.kind()).clock_hz / PACKETS_A_SECOND;
        let mut file = BufWriter::new(std::fs::File::create(&self.capture)?);
        file.write_all(b"SN3")?;
        for n in 0..self.packets() {
            for (side, payloads) in payloads.iter().enumerate() {
                let payload = &payloads[n as usize % payloads.len()];
                file.write_all(&[side as u8])?;
                file.write_all(&(n as u16).to_le_bytes())?;
                file.write_all(&n.wrapping_mul(ticks).to_le_bytes())?;
                file.write_all(&(u64::from(n) * 20_000_000).to_le_bytes())?;
                file.write_all(&(payload.len() as u16).to_le_bytes())?;
                file.write_all(payload)?;
            }
        }
        file.flush()?;
        Ok(())
    }

    /// Packets of one side made by libopus; the Ogg file of the whole call is left for ffmpeg.
    fn opus(&self, side: usize) -> Outcome<Vec<Vec<u8>>> {
        let sound: Vec<u8> = voice(48_000, side)
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        let short = self.capture.with_extension("pcm");
        std::fs::write(&short, sound)?;
        let repeats = (self.minutes * 60).div_ceil(LOOP_S) - 1;
        let encode = |repeats: u32, output: &Path| -> Outcome<()> {
            let status = Command::new("ffmpeg")
                .args(["-v", "error", "-y", "-stream_loop", &repeats.to_string()])
                .args(["-f", "s16le", "-ar", "48000", "-ac", "1", "-i"])
                .arg(&short)
                .args([
                    "-c:a",
                    "libopus",
                    "-b:a",
                    "24k",
                    "-application",
                    "voip",
                    "-f",
                    "ogg",
                ])
                .arg(output)
                .stdin(Stdio::null())
                .status()?;
            if status.success() {
                Ok(())
            } else {
                Err("ffmpeg has no libopus".into())
            }
        };
        encode(repeats, &self.streams[side])?;
        packets_of_ogg(&std::fs::read(&self.streams[side])?)
    }

    pub fn ffmpeg(&self) -> Vec<String> {
        let mut command: Vec<String> = ["ffmpeg", "-v", "error", "-y", "-threads", "1"]
            .map(str::to_owned)
            .to_vec();
        for path in &self.streams {
            if let Some(demuxer) = self.codec.demuxer() {
                command.extend(["-f", demuxer].map(str::to_owned));
                if self.codec == Codec::G711 {
                    command.extend(["-ar", "8000", "-ac", "1"].map(str::to_owned));
                }
            }
            command.extend(["-i".to_owned(), path.display().to_string()]);
        }
        let merge = "[0:a][1:a]amerge=inputs=2";
        command.extend(
            ["-filter_complex", merge, "-c:a", "pcm_s16le", "-f", "wav"].map(str::to_owned),
        );
        command.push(self.output.display().to_string());
        command
    }

    /// sox reads G.711 only.
    pub fn sox(&self) -> Option<Vec<String>> {
        let raw = ["-t", "ul", "-r", "8000", "-c", "1"];
        (self.codec == Codec::G711).then(|| {
            let mut command = vec!["sox".to_owned(), "-M".to_owned()];
            for path in &self.streams {
                command.extend(raw.map(str::to_owned));
                command.push(path.display().to_string());
            }
            command.extend(["-e", "signed-integer", "-b", "16", "-t", "wav"].map(str::to_owned));
            command.push(self.output.display().to_string());
            command
        })
    }
}

/// A synthetic voice.
fn voice(rate_hz: u32, side: usize) -> Vec<i16> {
    let mut phase = 0.0_f64;
    (0..rate_hz * LOOP_S)
        .map(|n| {
            let t = f64::from(n) / f64::from(rate_hz);
            phase += (120.0 + 40.0 * side as f64 + 25.0 * (t * 6.1).sin()) / f64::from(rate_hz);
            let level = 0.5 + 0.5 * (t * 13.0).sin();
            let sum: f64 = (1..10)
                .map(|h| (std::f64::consts::TAU * phase * f64::from(h)).sin() / f64::from(h))
                .sum();
            (sum * level * 7_000.0) as i16
        })
        .collect()
}

fn encode(codec: Codec, side: usize) -> Outcome<Vec<Vec<u8>>> {
    let mut encoder = Format::usual(codec.kind()).encoder()?;
    let rate = encoder.rate_hz();
    let mut payloads = Vec::new();
    for frame in voice(rate, side).chunks_exact((rate / PACKETS_A_SECOND) as usize) {
        let mut payload = Vec::new();
        encoder.encode(frame, &mut payload)?;
        payloads.push(payload);
    }
    Ok(payloads)
}

/// The audio packets of an Ogg Opus file (RFC 3533, RFC 7845): two header packets come first.
fn packets_of_ogg(ogg: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    let (mut at, mut packet) = (0, Vec::new());
    while let Some(page) = ogg.get(at..).filter(|rest| rest.len() > 27) {
        if page[..4] != *b"OggS" {
            return Err("not an Ogg page".into());
        }
        let count = usize::from(page[26]);
        let mut body = 27 + count;
        for &lace in &page[27..27 + count] {
            packet.extend_from_slice(&page[body..body + usize::from(lace)]);
            body += usize::from(lace);
            if lace < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        at += body;
    }
    Ok(packets.split_off(packets.len().min(2)))
}
