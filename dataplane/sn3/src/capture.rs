//! One reader for all formats: a recording in segments, an exported call, and the classic blobs.
//!
//! Opening reads everything once, so that facts and damage are known before the first frame is
//! asked for; [`Capture::frames`] can then be called as often as wanted. Frames come in capture order.

use std::path::{Path, PathBuf};

use crate::assemble::Assemble;
use crate::classic::{ClassicFormat, ClassicFrames};
use crate::evidence;
use crate::export::{ClassicWriter, ExportTotals};
use crate::facts::{CallChange, CallClose, CallOpen, LegFact, PayloadFact};
use crate::frame::{Frame, FrameKind};
use crate::keys::Keys;
use crate::map::Bytes;
use crate::reader::SegmentReader;
use crate::record::{ClockTriple, DropRecord, PauseRecord};
use crate::recording::{RecordingReader, StoredFrames};

/// The longest time from a call's answer to the start of a recording of it: seven days.
const ANSWER_AGE_NS_MAX: i64 = 7 * 86_400 * 1_000_000_000;
/// Facts that cannot be understood and are told of.
const UNREADABLE_MAX: usize = 64;

/// Where frames came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureFormat {
    /// Segments.
    Segment,
    /// Exported by us as classic SN3: classic bytes with our facts in frames that others skip.
    Exported,
    /// A classic blob with capture times.
    Sn3,
    /// A classic blob without capture times.
    Sn2,
    /// A classic blob with directions and payloads only.
    Sn1,
}

impl CaptureFormat {
    /// Frames have `wall_ns`.
    #[must_use]
    pub const fn has_wall(self) -> bool {
        matches!(self, Self::Segment | Self::Exported | Self::Sn3)
    }

    /// Frames have `seq` and `rtp_ts`.
    #[must_use]
    pub const fn has_sequence(self) -> bool {
        !matches!(self, Self::Sn1)
    }

    /// Frames have SSRC, payload type, marker and extended sequence number.
    #[must_use]
    pub const fn has_stream(self) -> bool {
        matches!(self, Self::Segment | Self::Exported)
    }
}

/// A place that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File; empty when the bytes came from memory.
    pub path: PathBuf,
    /// First damaged byte as far as known, from the file's start.
    pub offset: u64,
    /// Bytes that could not be used; 0 = not known.
    pub length: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.what)?;
        if self.length > 0 {
            write!(f, " ({} bytes skipped)", self.length)?;
        }
        if !self.path.as_os_str().is_empty() {
            write!(f, " in {}", self.path.display())?;
        }
        Ok(())
    }
}

/// Why a capture could not be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file could not be read.
    #[error("{path}: {cause}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause: part of the message, so that no chain of errors tells it twice.
        cause: std::io::Error,
    },
    /// No magic of a known format.
    #[error("{path}: byte 0: not an SN3 segment and not an SN1, SN2 or SN3 blob")]
    NotACapture {
        /// File.
        path: PathBuf,
    },
    /// A segment holds several recordings: one has to be named.
    #[error("{path} holds {} recordings, name one of them", recordings.len())]
    ManyRecordings {
        /// File.
        path: PathBuf,
        /// Their numbers.
        recordings: Vec<u64>,
    },
    /// It is encrypted, and its key is not at hand.
    #[error(
        "recording {recording} in {path} is encrypted: its key was erased, or no master key given wraps it"
    )]
    NoKey {
        /// File or directory.
        path: PathBuf,
        /// Its number.
        recording: u64,
    },
    /// Not in these segments.
    #[error("recording {recording} is not in {path}")]
    NoSuchRecording {
        /// File or directory.
        path: PathBuf,
        /// Number wanted.
        recording: u64,
    },
}

/// A pause of the recording, ns since its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseSpan {
    /// From.
    pub from_ns: u64,
    /// To; `None` = to the end.
    pub to_ns: Option<u64>,
    /// See [`crate::record::PauseRecord`].
    pub by: u8,
}

/// What the recording says of itself. Times are ns since the recording's origin unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CaptureFacts {
    /// Recording number, 0 = not known.
    pub recording: u64,
    /// The first clock frame and its `wall_ns`.
    pub clock: Option<(u64, ClockTriple)>,
    /// The call-open fact.
    pub open: Option<CallOpen>,
    /// Changes in order, each with its time.
    pub changes: Vec<(u64, CallChange)>,
    /// The call-close fact and its time.
    pub close: Option<(u64, CallClose)>,
    /// Pauses in order.
    pub pauses: Vec<PauseSpan>,
    /// Drops in order, each with its time.
    pub drops: Vec<(u64, DropRecord)>,
    /// `wall_ns` of the first and last frame that is audio.
    pub audio_span: Option<(u64, u64)>,
    /// Audio frames of each side.
    pub audio_frames: [u64; 2],
}

impl CaptureFacts {
    /// Takes a frame into account; what it should say, where it cannot be understood.
    fn note(&mut self, frame: &Frame<'_>) -> Result<(), &'static str> {
        let at = frame.wall_ns;
        match frame.kind {
            FrameKind::Rtp => {
                let (first, last) = self.audio_span.unwrap_or((at, at));
                self.audio_span = Some((first.min(at), last.max(at)));
                self.audio_frames[usize::from(frame.side & 1)] += 1;
            }
            FrameKind::CallOpen if self.open.is_none() => {
                let open = serde_json::from_slice(&frame.payload);
                self.open = Some(open.map_err(|_| "what the call began as is not readable")?);
            }
            FrameKind::CallChange => {
                let change = serde_json::from_slice(&frame.payload);
                let change = change.map_err(|_| "a change of the call is not readable")?;
                self.changes.push((at, change));
            }
            FrameKind::CallClose => {
                let close = serde_json::from_slice(&frame.payload);
                let close = close.map_err(|_| "how the call ended is not readable")?;
                self.close = Some((at, close));
            }
            FrameKind::Clock if self.clock.is_none() => {
                let clock = ClockTriple::decode(&frame.payload);
                self.clock = Some((at, clock.ok_or("the clocks are not readable")?));
            }
            FrameKind::Pause => {
                let by = PauseRecord::decode(&frame.payload).by;
                self.pauses.push(PauseSpan {
                    from_ns: at,
                    to_ns: None,
                    by,
                });
            }
            FrameKind::Resume => {
                if let Some(pause) = self.pauses.last_mut().filter(|pause| pause.to_ns.is_none()) {
                    pause.to_ns = Some(at);
                }
            }
            FrameKind::Drop => {
                if let Some(record) = DropRecord::decode(&frame.payload) {
                    self.drops.push((at, record));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// CLOCK_MONOTONIC ns of `wall_ns` 0.
    #[must_use]
    pub fn origin_mono_ns(&self) -> Option<u64> {
        self.clock
            .map(|(wall_ns, clock)| clock.mono_ns.wrapping_sub(wall_ns))
    }

    /// When the call was answered, on the scale of `wall_ns`; negative when before the recording
    /// started.
    #[must_use]
    pub fn answered_ns(&self) -> Option<i64> {
        let changed = self
            .changes
            .iter()
            .find_map(|(_, change)| change.answered_mono_ns);
        let opened = self.open.as_ref().map(|open| open.answered_mono_ns);
        let mono = opened
            .filter(|&ns| ns != 0)
            .or(changed)
            .filter(|&ns| ns != 0)?;
        let (mono, origin) = (
            i64::try_from(mono).ok()?,
            i64::try_from(self.origin_mono_ns()?).ok()?,
        );
        // No call lasts so long before its recording starts: one of the two clocks is nonsense.
        Some(if origin - mono > ANSWER_AGE_NS_MAX {
            0
        } else {
            mono - origin
        })
    }

    /// When the recording ended, on the scale of `wall_ns`.
    #[must_use]
    pub fn ended_ns(&self) -> Option<u64> {
        let (_, close) = self.close.as_ref()?;
        (close.ended_mono_ns != 0)
            .then(|| Some(close.ended_mono_ns.saturating_sub(self.origin_mono_ns()?)))
            .flatten()
    }

    /// The leg (side, media) as it was at `wall_ns`.
    #[must_use]
    pub fn leg_at(&self, side: u8, media: u8, wall_ns: u64) -> Option<&LegFact> {
        let wanted = |leg: &&LegFact| leg.side == side && leg.media == media;
        let opened = self.open.iter().flat_map(|open| &open.legs).rfind(wanted);
        let changed = self
            .changes
            .iter()
            .take_while(|(at, _)| *at <= wall_ns)
            .filter_map(|(_, change)| change.legs.iter().rfind(wanted))
            .last();
        changed.or(opened)
    }

    /// What payload type `pt` meant on (side, media) at `wall_ns`; when not yet (or no longer)
    /// said there, what it first means anywhere in the recording.
    #[must_use]
    pub fn payload_at(&self, side: u8, media: u8, pt: u8, wall_ns: u64) -> Option<&PayloadFact> {
        let of = |leg: &'_ LegFact| leg.payloads.iter().position(|payload| payload.pt == pt);
        if let Some(leg) = self.leg_at(side, media, wall_ns)
            && let Some(index) = of(leg)
        {
            return leg.payloads.get(index);
        }
        let opened = self.open.iter().flat_map(|open| &open.legs);
        let changed = self.changes.iter().flat_map(|(_, change)| &change.legs);
        opened
            .chain(changed)
            .filter(|leg| leg.side == side && leg.media == media)
            .flat_map(|leg| &leg.payloads)
            .find(|payload| payload.pt == pt)
    }
}

/// An opened capture.
#[derive(Debug)]
pub struct Capture {
    source: Source,
    format: CaptureFormat,
    facts: CaptureFacts,
    damages: Vec<Damage>,
}

#[derive(Debug)]
enum Source {
    Blob(Bytes),
    Recording(RecordingReader),
}

impl Capture {
    /// Opens a file by its magic. A segment must hold exactly one recording.
    ///
    /// # Errors
    /// See [`CaptureError`]. Damage is no error: see [`Capture::damages`].
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::open_with(path, &Keys::none())
    }

    /// [`Capture::open`] of what may be encrypted.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_with(path: &Path, keys: &Keys) -> Result<Self, CaptureError> {
        let bytes = Bytes::open(path).map_err(|cause| CaptureError::Io {
            path: path.to_path_buf(),
            cause,
        })?;
        if evidence::looks_like_evidence(&bytes) {
            return Self::open_evidence(bytes, path, keys);
        }
        if !SegmentReader::looks_like_segment(&bytes) {
            return Self::over_blob(bytes, path);
        }
        drop(bytes);
        let recordings = SegmentReader::open(path)?.recordings();
        match recordings[..] {
            [recording] => Self::open_recording_with(path, recording, keys),
            _ => Err(CaptureError::ManyRecordings {
                path: path.to_path_buf(),
                recordings,
            }),
        }
    }

    /// The recording in an evidence archive. Offsets of damage are the archive's, those of frames count
    /// from the start of its segment.
    fn open_evidence(bytes: Bytes, path: &Path, keys: &Keys) -> Result<Self, CaptureError> {
        let not_a_capture = || CaptureError::NotACapture {
            path: path.to_path_buf(),
        };
        let range = evidence::segment_range(&bytes).ok_or_else(not_a_capture)?;
        let base = range.start as u64;
        let keys = evidence::data_key(&bytes, keys).map_or(Keys::none(), Keys::of_one);
        let segment = SegmentReader::over(bytes.part(range), path)?;
        let recordings = segment.recordings();
        let [recording] = recordings[..] else {
            return Err(CaptureError::ManyRecordings {
                path: path.to_path_buf(),
                recordings,
            });
        };
        let mut capture =
            Self::over_recording(RecordingReader::in_segment(segment, recording, &keys)?);
        for damage in &mut capture.damages {
            damage.offset += base;
        }
        Ok(capture)
    }

    /// Opens a blob (exported call or classic) in memory; `name` is used in messages.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn from_bytes(bytes: Vec<u8>, name: &Path) -> Result<Self, CaptureError> {
        Self::over_blob(Bytes::Memory(bytes), name)
    }

    /// Opens one recording of a segment file, with the parts of it that lie in segments beside that file.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_recording(path: &Path, recording: u64) -> Result<Self, CaptureError> {
        Self::open_recording_with(path, recording, &Keys::none())
    }

    /// [`Capture::open_recording`] of what may be encrypted.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_recording_with(
        path: &Path,
        recording: u64,
        keys: &Keys,
    ) -> Result<Self, CaptureError> {
        RecordingReader::in_file(path, recording, keys).map(Self::over_recording)
    }

    /// Opens a recording from a directory of segments. `last` is its last (segment, page) when known:
    /// then only its own extents are read.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_in_directory(
        directory: &Path,
        recording: u64,
        last: Option<(u32, u32)>,
    ) -> Result<Self, CaptureError> {
        Self::open_in_directory_with(directory, recording, last, &Keys::none())
    }

    /// [`Capture::open_in_directory`] of what may be encrypted.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn open_in_directory_with(
        directory: &Path,
        recording: u64,
        last: Option<(u32, u32)>,
        keys: &Keys,
    ) -> Result<Self, CaptureError> {
        RecordingReader::in_directory(directory, recording, last, keys).map(Self::over_recording)
    }

    pub(crate) fn over_recording(reader: RecordingReader) -> Self {
        let damages = reader.damages().to_vec();
        let recording = reader.recording();
        Self {
            source: Source::Recording(reader),
            format: CaptureFormat::Segment,
            facts: CaptureFacts {
                recording,
                ..CaptureFacts::default()
            },
            damages,
        }
        .gather(Path::new(""))
    }

    pub(crate) fn over_blob(bytes: Bytes, path: &Path) -> Result<Self, CaptureError> {
        let mut frames = ClassicFrames::new(&bytes).ok_or_else(|| CaptureError::NotACapture {
            path: path.to_path_buf(),
        })?;
        let format = match frames.format() {
            ClassicFormat::Sn3 if frames.is_exported() => CaptureFormat::Exported,
            ClassicFormat::Sn3 => CaptureFormat::Sn3,
            ClassicFormat::Sn2 => CaptureFormat::Sn2,
            ClassicFormat::Sn1 => CaptureFormat::Sn1,
        };
        frames.by_ref().for_each(drop);
        let damages = frames
            .damages()
            .iter()
            .map(|damage| Damage {
                path: path.to_path_buf(),
                offset: damage.offset,
                length: damage.length,
                what: damage.what.to_owned(),
            })
            .collect();
        let facts = CaptureFacts {
            recording: frames.recording(),
            ..CaptureFacts::default()
        };
        Ok(Self {
            source: Source::Blob(bytes),
            format,
            facts,
            damages,
        }
        .gather(path))
    }

    fn gather(mut self, path: &Path) -> Self {
        let mut facts = std::mem::take(&mut self.facts);
        let mut unreadable = Vec::new();
        for frame in self.frames() {
            if let Err(what) = facts.note(&frame)
                && unreadable.len() < UNREADABLE_MAX
            {
                unreadable.push((frame.offset, frame.payload.len() as u64, what));
            }
        }
        self.facts = facts;
        self.note_unreadable(unreadable, path);
        self
    }

    /// Facts of an exported call that cannot be understood are damages; segments have checksums, and a
    /// later version may say things in its own way.
    fn note_unreadable(&mut self, unreadable: Vec<(u64, u64, &'static str)>, path: &Path) {
        let Source::Blob(_) = self.source else {
            return;
        };
        if self.format != CaptureFormat::Exported {
            return;
        }
        for (offset, length, what) in unreadable {
            self.damages.push(Damage {
                path: path.to_path_buf(),
                offset,
                length,
                what: what.to_owned(),
            });
        }
        self.damages.sort_by_key(|damage| damage.offset);
    }

    /// Where the frames come from.
    #[must_use]
    pub const fn format(&self) -> CaptureFormat {
        self.format
    }

    /// What the recording says of itself; empty in classic blobs but for counts and spans.
    #[must_use]
    pub const fn facts(&self) -> &CaptureFacts {
        &self.facts
    }

    /// Places that could not be read, in file order; empty = whole.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// The extents behind it, when it comes from segments.
    #[must_use]
    pub const fn recording(&self) -> Option<&RecordingReader> {
        match &self.source {
            Source::Recording(reader) => Some(reader),
            Source::Blob(_) => None,
        }
    }

    /// All frames in capture order, payloads in one piece.
    pub fn frames(&self) -> Frames<'_> {
        Frames(match &self.source {
            Source::Blob(bytes) => {
                let frames = ClassicFrames::new(bytes).expect("opening looked at the magic");
                Inner::Blob(Assemble::new(frames))
            }
            Source::Recording(reader) => Inner::Recording(Assemble::new(reader.frames())),
        })
    }

    /// Writes the capture as a classic SN3 blob, see [`crate::export`].
    ///
    /// # Errors
    /// Those of `out`.
    pub fn export(&self, out: impl std::io::Write) -> std::io::Result<ExportTotals> {
        let rebase_ns = self.facts.audio_span.map_or(0, |(first, _)| first);
        let mut writer = ClassicWriter::new(out, self.facts.recording, rebase_ns)?;
        for frame in self.frames() {
            writer.frame(&frame)?;
        }
        writer.finish()
    }
}

/// See [`Capture::frames`].
#[derive(Debug)]
pub struct Frames<'a>(Inner<'a>);

#[derive(Debug)]
enum Inner<'a> {
    Blob(Assemble<'a, ClassicFrames<'a>>),
    Recording(Assemble<'a, StoredFrames<'a>>),
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        match &mut self.0 {
            Inner::Blob(frames) => frames.next(),
            Inner::Recording(frames) => frames.next(),
        }
    }
}
