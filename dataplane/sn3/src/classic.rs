//! Classic blobs: SN1, SN2, SN3, and calls that we exported as SN3.
//!
//! The formats have no checksums, so damage shows only where a frame does not lead to another
//! plausible one. The reader then looks for the next place from which frames follow each other.

use std::borrow::Cow;

use crate::assemble::Pieces;
use crate::export::{Extension, FrameContexts};
use crate::frame::{Frame, FrameKind};
use crate::layout::PAYLOAD_MAX;

/// Longest plausible step of capture time between frames, and the most that time may run back.
const STEP_MAX_NS: u64 = 12 * 3600 * 1_000_000_000;
const BACK_MAX_NS: u64 = 2_000_000_000;
/// How far behind a place with frames of another time one with fitting time is looked for.
const SEARCH_MAX: usize = 64 * 1024;
/// Frames that have to follow each other before a place counts as found again.
const CHAIN: usize = 5;

/// The three layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassicFormat {
    /// `[dir u8][len u16][payload]`
    Sn1,
    /// `[dir u8][seq u16][rtp_ts u32][len u16][payload]`
    Sn2,
    /// `[dir u8][seq u16][rtp_ts u32][wall_ns u64][len u16][payload]`
    Sn3,
}

impl ClassicFormat {
    /// By the first bytes of a file.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..3)? {
            b"SN1" => Some(Self::Sn1),
            b"SN2" => Some(Self::Sn2),
            b"SN3" => Some(Self::Sn3),
            _ => None,
        }
    }

    const fn header(self) -> usize {
        match self {
            Self::Sn1 => 3,
            Self::Sn2 => 9,
            Self::Sn3 => 17,
        }
    }
}

/// A stretch that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassicDamage {
    /// First byte.
    pub offset: u64,
    /// Bytes skipped.
    pub length: u64,
    /// What is wrong.
    pub what: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Raw<'a> {
    at: usize,
    dir: u8,
    seq: u16,
    rtp_ts: u32,
    wall_ns: u64,
    payload: &'a [u8],
    next: usize,
}

enum Parsed<'a> {
    Frame(Raw<'a>),
    Bad(&'static str),
}

/// Iterates over the frames of a blob and collects damage.
#[derive(Debug)]
pub struct ClassicFrames<'a> {
    bytes: &'a [u8],
    format: ClassicFormat,
    at: usize,
    last_wall: u64,
    last_length: [usize; 2],
    contexts: Option<FrameContexts>,
    damages: Vec<ClassicDamage>,
}

impl<'a> ClassicFrames<'a> {
    /// Over a blob with its magic; `None` when it has none.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let format = ClassicFormat::of(bytes)?;
        let mut frames = Self {
            bytes,
            format,
            at: 3,
            last_wall: 0,
            last_length: [0; 2],
            contexts: None,
            damages: Vec::new(),
        };
        if format == ClassicFormat::Sn3
            && let Parsed::Frame(raw) = frames.parse(3)
            && let Some(Extension::Hello {
                rebase_ns,
                recording,
            }) = Extension::read(raw.dir, raw.payload)
        {
            frames.contexts = Some(FrameContexts::new(rebase_ns, recording));
            frames.at = raw.next;
        }
        Some(frames)
    }

    /// Whether we exported it.
    #[must_use]
    pub fn is_exported(&self) -> bool {
        self.contexts.is_some()
    }

    /// Recording number of an exported call.
    #[must_use]
    pub fn recording(&self) -> u64 {
        self.contexts.as_ref().map_or(0, FrameContexts::recording)
    }

    /// Layout.
    #[must_use]
    pub const fn format(&self) -> ClassicFormat {
        self.format
    }

    /// Damage met so far; complete once the iterator has ended.
    #[must_use]
    pub fn damages(&self) -> &[ClassicDamage] {
        &self.damages
    }

    fn parse(&self, at: usize) -> Parsed<'a> {
        let header = self.format.header();
        let Some(bytes) = self.bytes.get(at..at + header) else {
            return Parsed::Bad("frame header is cut");
        };
        let length = usize::from(u16::from_le_bytes([bytes[header - 2], bytes[header - 1]]));
        if length == 0 {
            return Parsed::Bad("frame of length 0");
        }
        if length > PAYLOAD_MAX {
            return Parsed::Bad("frame length above 4000");
        }
        let next = at + header + length;
        let Some(payload) = self.bytes.get(at + header..next) else {
            return Parsed::Bad("frame payload is cut");
        };
        let mut raw = Raw {
            at,
            dir: bytes[0],
            seq: 0,
            rtp_ts: 0,
            wall_ns: 0,
            payload,
            next,
        };
        if header >= 9 {
            raw.seq = u16::from_le_bytes([bytes[1], bytes[2]]);
            raw.rtp_ts = u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
        }
        if let Some(wall) = bytes.get(7..15) {
            raw.wall_ns = u64::from_le_bytes(wall.try_into().expect("eight bytes"));
        }
        Parsed::Frame(raw)
    }

    /// Whether capture time may go from `last` to `wall_ns`.
    fn time_fits(&self, last: u64, wall_ns: u64) -> bool {
        self.format != ClassicFormat::Sn3
            || (wall_ns.saturating_add(BACK_MAX_NS) >= last
                && wall_ns <= last.saturating_add(STEP_MAX_NS))
    }

    /// Whether `at` is the end of the file or looks like a frame that follows one of time `last`.
    fn leads_on(&self, at: usize, last: u64) -> bool {
        let mut at = at;
        for _ in 0..CHAIN {
            if at == self.bytes.len() {
                return true;
            }
            match self.parse(at) {
                Parsed::Bad(_) => return false,
                Parsed::Frame(raw) if raw.dir <= 1 => return self.time_fits(last, raw.wall_ns),
                // Foreign frames may hold any time: what follows them decides.
                Parsed::Frame(raw) => at = raw.next,
            }
        }
        true
    }

    /// Whether several frames follow each other from `at`, or a few up to the exact end. `last` is the
    /// capture time before them, where they have to fit it.
    fn is_chain(&self, at: usize, last: Option<u64>) -> bool {
        let mut at = at;
        let mut last = last;
        for count in 0..CHAIN {
            if at == self.bytes.len() {
                return count > 0;
            }
            let Parsed::Frame(raw) = self.parse(at) else {
                return false;
            };
            let fits = |last| self.time_fits(last, raw.wall_ns);
            if raw.dir <= 1 && last.is_none_or(fits) {
                last = Some(last.unwrap_or(raw.wall_ns).max(raw.wall_ns));
            } else if raw.dir <= 1 || (count == 0 && !self.is_ours(&raw)) {
                return false;
            }
            at = raw.next;
        }
        true
    }

    /// A frame of dir >= 2 that an export of ours may hold.
    fn is_ours(&self, raw: &Raw<'_>) -> bool {
        self.contexts.is_some()
            && (Extension::read(raw.dir, raw.payload).is_some()
                || (2..=25).contains(&raw.dir) && self.time_fits(self.last_wall, raw.wall_ns))
    }

    fn find_chain(&self, from: usize, until: usize, last: Option<u64>) -> Option<usize> {
        (from..until.min(self.bytes.len())).find(|&at| self.is_chain(at, last))
    }

    /// Capture time of the first audio frame from `at` on.
    fn wall_after(&self, at: usize) -> Option<u64> {
        let mut at = at;
        for _ in 0..CHAIN {
            match self.parse(at) {
                Parsed::Frame(raw) if raw.dir <= 1 => return Some(raw.wall_ns),
                Parsed::Frame(raw) => at = raw.next,
                Parsed::Bad(_) => return None,
            }
        }
        None
    }

    fn next_raw(&mut self) -> Option<Raw<'a>> {
        // Each round either gives a frame or moves on to a place where one starts.
        while self.at < self.bytes.len() {
            let what = match self.parse(self.at) {
                Parsed::Frame(raw) if raw.dir > 1 => return Some(self.accept(raw)),
                Parsed::Frame(raw) if self.time_fits(self.last_wall, raw.wall_ns) => {
                    return Some(self.accept_audio(raw));
                }
                Parsed::Frame(raw) if self.leads_on(raw.next, self.last_wall) => {
                    return Some(self.mend_time(raw));
                }
                Parsed::Frame(_) => "bytes that are no frame",
                Parsed::Bad(what) => what,
            };
            self.skip(what);
        }
        None
    }

    fn accept_audio(&mut self, raw: Raw<'a>) -> Raw<'a> {
        let after = self
            .wall_after(raw.next)
            .filter(|_| self.format == ClassicFormat::Sn3);
        let ahead = after.is_some_and(|after| {
            !self.time_fits(raw.wall_ns, after) && self.time_fits(self.last_wall, after)
        });
        if ahead {
            return self.mend_time(raw);
        }
        let before = self.last_wall;
        self.last_wall = before.max(raw.wall_ns);
        self.accept(raw)
    }

    /// Takes a frame whose capture time alone is out of line.
    fn mend_time(&mut self, mut raw: Raw<'a>) -> Raw<'a> {
        self.report(raw.at, 0, "capture time does not fit the frames around");
        raw.wall_ns = self.last_wall;
        self.accept(raw)
    }

    /// Takes a frame that looks good, and mends its length where that is what leads astray.
    fn accept(&mut self, mut raw: Raw<'a>) -> Raw<'a> {
        let side = usize::from(raw.dir & 1);
        if !self.leads_on(raw.next, self.last_wall)
            && let Some(next) = self.real_next(&raw)
        {
            let payload = raw.at + self.format.header();
            self.report(raw.at, 0, "frame length does not lead to the next frame");
            raw.next = next;
            raw.payload = &self.bytes[payload..next.min(payload + PAYLOAD_MAX)];
        } else if raw.dir <= 1 {
            self.last_length[side] = raw.payload.len();
        }
        self.at = raw.next;
        raw
    }

    /// Where the next frame starts if it is this one's length that is wrong: as long as the one before
    /// it, or shorter than it says.
    fn real_next(&self, raw: &Raw<'a>) -> Option<usize> {
        let payload = raw.at + self.format.header();
        let last = Some(self.last_wall);
        let usual = payload + self.last_length[usize::from(raw.dir & 1)];
        let found = if usual > payload && usual != raw.next && self.is_chain(usual, last) {
            usual
        } else {
            self.find_chain(payload + 1, raw.next + self.format.header(), last)?
        };
        (found != raw.next).then_some(found)
    }

    fn skip(&mut self, what: &'static str) {
        let from = self.at;
        let next = self.find_again(from).unwrap_or(self.bytes.len());
        if let Some(wall_ns) = self.wall_after(next)
            && !self.time_fits(self.last_wall, wall_ns)
        {
            // Perhaps two captures in one file: time starts anew.
            self.last_wall = wall_ns;
        }
        self.report(from, next - from, what);
        self.at = next;
    }

    /// Where frames follow each other again: best where they fit the time before, else anywhere.
    fn find_again(&self, from: usize) -> Option<usize> {
        let anywhere = self.find_chain(from, usize::MAX, None)?;
        let until = anywhere.saturating_add(SEARCH_MAX);
        self.find_chain(anywhere.max(from + 1), until, Some(self.last_wall))
            .or(Some(anywhere))
    }

    fn report(&mut self, offset: usize, length: usize, what: &'static str) {
        self.damages.push(ClassicDamage {
            offset: offset as u64,
            length: length as u64,
            what,
        });
    }

    fn frame_of(&mut self, raw: &Raw<'a>) -> Option<(Frame<'a>, u8)> {
        if let Some(contexts) = &mut self.contexts {
            if let Some(extension) = Extension::read(raw.dir, raw.payload) {
                contexts.note(&extension);
                return None;
            }
            let (head, piece) = contexts.describe(raw.dir, raw.wall_ns);
            let frame = Frame {
                kind: head.kind,
                side: head.side,
                media: head.media,
                ssrc: Some(head.ssrc),
                pt: Some(head.pt),
                marker: head.marker,
                flags: head.flags,
                seq: raw.seq,
                seq_cycles: head.seq_cycles,
                rtp_ts: raw.rtp_ts,
                wall_ns: head.wall_ns,
                payload: Cow::Borrowed(raw.payload),
                offset: raw.at as u64,
            };
            return Some((frame, piece));
        }
        let kind = if raw.dir <= 1 {
            FrameKind::Rtp
        } else {
            FrameKind::Unknown(raw.dir)
        };
        let frame = Frame {
            kind,
            side: raw.dir & 1,
            media: 0,
            ssrc: None,
            pt: None,
            marker: false,
            flags: 0,
            seq: raw.seq,
            seq_cycles: 0,
            rtp_ts: raw.rtp_ts,
            wall_ns: raw.wall_ns,
            payload: Cow::Borrowed(raw.payload),
            offset: raw.at as u64,
        };
        Some((frame, 0))
    }
}

impl<'a> Pieces<'a> for ClassicFrames<'a> {
    fn next_piece(&mut self) -> Option<(Frame<'a>, u8)> {
        loop {
            let raw = self.next_raw()?;
            if let Some(frame) = self.frame_of(&raw) {
                return Some(frame);
            }
        }
    }
}

impl<'a> Iterator for ClassicFrames<'a> {
    type Item = Frame<'a>;

    /// The next stored frame; split payloads come in pieces, with [`crate::flags::SHAPE`] set.
    fn next(&mut self) -> Option<Frame<'a>> {
        self.next_piece().map(|(frame, _)| frame)
    }
}
