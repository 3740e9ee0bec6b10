//! Export of a call as a classic SN3 blob that classic readers read correctly, and that loses
//! nothing when read by us.
//!
//! Each frame is written as its 17 classic bytes and its payload. What these do not hold (SSRC,
//! payload type, marker ...) travels in *extension frames*: dir 255, payload starting with `TLX1`,
//! which classic readers skip like every dir >= 2. One is written only when a frame's stream differs
//! from that of the frame before it with the same dir, or when it has something of its own to say.

use std::io::{self, Write};

use crate::frame::{Frame, FrameHead, FrameKind, flags, pieces};
use crate::layout::{CLASSIC, CLASSIC_SN3_MAGIC};

/// `dir` of extension frames.
pub const EXTENSION_DIR: u8 = 255;
const MAGIC: [u8; 4] = *b"TLX1";
const HELLO: u8 = 0;
const DESCRIBE: u8 = 1;

/// What an extension frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// The first frame of an exported call.
    Hello {
        /// Subtracted from every frame's `wall_ns`, so that the first audio frame has 0.
        rebase_ns: u64,
        /// Recording number.
        recording: u64,
    },
    /// About frames of one dir.
    Describe(Describe),
}

/// Stream of the frames with this dir from here on; marker, flags and time of the next one only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Describe {
    /// Which frames.
    pub dir: u8,
    /// Frame kind.
    pub kind: u8,
    /// m-line.
    pub media: u8,
    /// SSRC.
    pub ssrc: u32,
    /// Payload type; next frame only: marker in bit 7.
    pub marker_pt: u8,
    /// Next frame only: flags.
    pub flags: u8,
    /// Upper half of the extended sequence number.
    pub seq_cycles: u16,
    /// Next frame only: its `wall_ns` before rebasing, where that would have been negative.
    pub wall_ns: Option<u64>,
    /// Next frame only: its number among the pieces of its payload.
    pub piece: u8,
}

impl Extension {
    /// Reads an extension frame; `None` for any other.
    #[must_use]
    pub fn read(dir: u8, payload: &[u8]) -> Option<Self> {
        let double = |at: usize| {
            Some(u64::from_le_bytes(
                payload.get(at..at + 8)?.try_into().ok()?,
            ))
        };
        if dir != EXTENSION_DIR || payload.get(..4)? != MAGIC {
            return None;
        }
        match *payload.get(4)? {
            HELLO => Some(Self::Hello {
                rebase_ns: double(8)?,
                recording: double(16)?,
            }),
            DESCRIBE => {
                let fixed = payload.get(..16)?;
                Some(Self::Describe(Describe {
                    dir: fixed[5],
                    kind: fixed[6],
                    media: fixed[7],
                    ssrc: u32::from_le_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
                    marker_pt: fixed[12],
                    flags: fixed[13],
                    seq_cycles: u16::from_le_bytes([fixed[14], fixed[15]]),
                    wall_ns: double(16),
                    piece: if payload.len() % 8 == 1 {
                        *payload.last()?
                    } else {
                        0
                    },
                }))
            }
            _ => None,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25);
        bytes.extend(MAGIC);
        match self {
            Self::Hello {
                rebase_ns,
                recording,
            } => {
                bytes.extend([HELLO, 0, 0, 0]);
                bytes.extend(rebase_ns.to_le_bytes());
                bytes.extend(recording.to_le_bytes());
            }
            Self::Describe(about) => {
                bytes.extend([DESCRIBE, about.dir, about.kind, about.media]);
                bytes.extend(about.ssrc.to_le_bytes());
                bytes.extend([about.marker_pt, about.flags]);
                bytes.extend(about.seq_cycles.to_le_bytes());
                bytes.extend(
                    about
                        .wall_ns
                        .iter()
                        .flat_map(|wall_ns| wall_ns.to_le_bytes()),
                );
                if about.piece != 0 {
                    bytes.push(about.piece);
                }
            }
        }
        bytes
    }
}

/// What is known of each dir's frames while reading an exported call.
#[derive(Debug, Clone)]
pub struct FrameContexts {
    rebase_ns: u64,
    recording: u64,
    by_dir: Box<[Describe; 256]>,
}

impl FrameContexts {
    /// After a hello.
    #[must_use]
    pub fn new(rebase_ns: u64, recording: u64) -> Self {
        Self {
            rebase_ns,
            recording,
            by_dir: Box::new([Describe::default(); 256]),
        }
    }

    /// Recording number.
    #[must_use]
    pub const fn recording(&self) -> u64 {
        self.recording
    }

    /// Takes an extension frame.
    pub fn note(&mut self, extension: &Extension) {
        if let Extension::Describe(about) = extension {
            self.by_dir[usize::from(about.dir)] = *about;
        }
    }

    /// Head of the next frame with this dir, and its number among the pieces of its payload.
    pub fn describe(&mut self, dir: u8, wall_ns: u64) -> (FrameHead, u8) {
        let about = &mut self.by_dir[usize::from(dir)];
        let kind = match dir {
            0 | 1 => FrameKind::Rtp,
            2..=253 => FrameKind::from_number((dir - 2) / 2),
            _ => FrameKind::from_number(about.kind),
        };
        let wall_ns = about
            .wall_ns
            .unwrap_or_else(|| wall_ns.saturating_add(self.rebase_ns));
        let head = FrameHead {
            kind,
            side: dir & 1,
            media: about.media,
            ssrc: about.ssrc,
            pt: about.marker_pt & 0x7f,
            marker: about.marker_pt & 0x80 != 0,
            flags: about.flags,
            seq: 0,
            seq_cycles: about.seq_cycles,
            rtp_ts: 0,
            wall_ns,
        };
        about.marker_pt &= 0x7f;
        about.flags = 0;
        about.wall_ns = None;
        (head, std::mem::take(&mut about.piece))
    }
}

/// What an export wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportTotals {
    /// Frames of the call.
    pub frames: u64,
    /// Extension frames between them.
    pub extensions: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// Writes a classic SN3 blob.
#[derive(Debug)]
pub struct ClassicWriter<W> {
    out: W,
    contexts: FrameContexts,
    totals: ExportTotals,
}

impl<W: Write> ClassicWriter<W> {
    /// Writes magic and hello. `rebase_ns` is the `wall_ns` of the first audio frame.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W, recording: u64, rebase_ns: u64) -> io::Result<Self> {
        let contexts = FrameContexts::new(rebase_ns, recording);
        let mut writer = Self {
            out,
            contexts,
            totals: ExportTotals::default(),
        };
        writer.out.write_all(&CLASSIC_SN3_MAGIC)?;
        writer.totals.bytes = CLASSIC_SN3_MAGIC.len() as u64;
        writer.extension(
            &Extension::Hello {
                rebase_ns,
                recording,
            },
            0,
        )?;
        Ok(writer)
    }

    /// Writes a frame, in pieces where its payload needs that.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        for (index, (shape, piece)) in pieces(&frame.payload).enumerate() {
            let head = FrameHead {
                kind: frame.kind,
                side: frame.side,
                media: frame.media,
                ssrc: frame.ssrc.unwrap_or(0),
                pt: frame.pt.unwrap_or(0),
                marker: frame.marker,
                flags: frame.flags & !flags::SHAPE | shape,
                seq: frame.seq,
                seq_cycles: frame.seq_cycles,
                rtp_ts: frame.rtp_ts,
                wall_ns: frame.wall_ns,
            };
            self.piece(&head, index as u8, piece)?;
        }
        Ok(())
    }

    fn piece(&mut self, head: &FrameHead, piece: u8, payload: &[u8]) -> io::Result<()> {
        let dir = head.dir();
        let wall_ns = head.wall_ns.saturating_sub(self.contexts.rebase_ns);
        let early = head.wall_ns < self.contexts.rebase_ns;
        let about = Describe {
            dir,
            kind: head.kind.number(),
            media: head.media,
            ssrc: head.ssrc,
            marker_pt: head.pt & 0x7f | u8::from(head.marker) << 7,
            flags: head.flags,
            seq_cycles: head.seq_cycles,
            wall_ns: early.then_some(head.wall_ns),
            piece,
        };
        // A classic frame of a new dir is described as if all of it were zero but the kind.
        let known = Describe {
            dir,
            kind: about.kind,
            ..self.contexts.by_dir[usize::from(dir)]
        };
        if known != about {
            self.extension(&Extension::Describe(about), wall_ns)?;
            self.contexts.note(&Extension::Describe(about));
        }
        let _ = self.contexts.describe(dir, wall_ns);
        self.totals.frames += 1;
        self.classic(dir, head.seq, head.rtp_ts, wall_ns, payload)
    }

    fn extension(&mut self, extension: &Extension, wall_ns: u64) -> io::Result<()> {
        self.totals.extensions += 1;
        self.classic(EXTENSION_DIR, 0, 0, wall_ns, &extension.payload())
    }

    fn classic(
        &mut self,
        dir: u8,
        seq: u16,
        rtp_ts: u32,
        wall_ns: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut header = [0u8; CLASSIC];
        header[0] = dir;
        header[1..3].copy_from_slice(&seq.to_le_bytes());
        header[3..7].copy_from_slice(&rtp_ts.to_le_bytes());
        header[7..15].copy_from_slice(&wall_ns.to_le_bytes());
        header[15..].copy_from_slice(&(payload.len() as u16).to_le_bytes());
        self.out.write_all(&header)?;
        self.out.write_all(payload)?;
        self.totals.bytes += (CLASSIC + payload.len()) as u64;
        Ok(())
    }

    /// Flushes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(self) -> io::Result<ExportTotals> {
        self.into_parts().map(|(_, totals)| totals)
    }

    /// Flushes and gives the output back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn into_parts(mut self) -> io::Result<(W, ExportTotals)> {
        self.out.flush()?;
        Ok((self.out, self.totals))
    }
}
