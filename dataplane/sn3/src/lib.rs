//! The SN3 capture format: extents, segments, frames, reader, verify and the classic SN1, SN2 and SN3 blobs.
//!
//! The layout is drawn in `docs/sn3.md`. A worker uses [`extent`] and [`frame`] only; the recorder
//! uses [`writer`]; everything that reads uses [`capture`], which makes one of all formats.

mod archive;
mod assemble;
pub mod capture;
pub mod chain;
pub mod cipher;
pub mod classic;
mod directory;
pub mod erase;
pub mod evidence;
pub mod export;
pub mod extent;
pub mod extract;
pub mod facts;
pub mod file;
pub mod frame;
mod hashing;
pub mod keys;
pub mod layout;
mod map;
pub mod proof;
pub mod reader;
pub mod record;
pub mod recording;
pub mod recover;
pub mod segment;
pub mod sim;
pub mod verify;
pub mod writer;

pub use capture::{Capture, CaptureError, CaptureFormat, Damage};
pub use directory::SegmentDirectory;
pub use frame::{Frame, FrameHead, FrameKind, flags};
pub use keys::Keys;
pub use map::Bytes;
pub use reader::SegmentReader;
pub use recording::RecordingReader;
