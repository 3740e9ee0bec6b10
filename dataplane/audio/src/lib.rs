//! A recording as sound: placement in time, concealment, channels and audio file writers. Cold code.
//!
//! Two passes over a [`Capture`](trunkline_sn3::Capture): [`Plan::new`] reads headers and decides
//! where every run of packets belongs in time, which codec it has, and how long the sound is;
//! [`write_sound`] (or [`render`], for any other sink) reads again, decodes and writes. Because the
//! length is known after the first pass, the output can be streamed. Memory is bounded whatever
//! the capture's length.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use trunkline_audio::{Options, Plan, write_wav};
//! let capture = trunkline_sn3::Capture::open("call.sn3".as_ref())?;
//! let plan = Plan::new(&capture, &Options::default())?;
//! let mut body = Vec::with_capacity(plan.wav_bytes() as usize);
//! write_wav(&capture, &plan, &mut body, &mut |_done, _total| true)?;
//! # Ok(()) }
//! ```
//!
//! What happens to a packet: [`router`](self) finds its run, `segment` and `drift` its place in
//! time, `content` and `guess` its codec, `player` its turn and its sound, `track` its samples.
#![forbid(unsafe_code)]

mod channels;
mod content;
mod drift;
mod events;
mod feed;
mod flac;
mod guess;
mod ogg_opus;
mod plan;
mod player;
mod render;
mod report;
mod resample;
mod router;
mod scan;
mod segment;
mod sound_file;
mod stage;
mod track;
mod wav;

pub use channels::{CHANNELS_MAX, Channel, ChannelLayout};
pub use events::TelephoneEvent;
pub use plan::{Options, Plan};
pub use render::{Progress, Sink, render, render_with_gaps};
pub use report::{CodecUse, StreamReport};
pub use resample::resample;
pub use sound_file::{Container, Written, write_sound};
pub use stage::{Gap, PlayCounts};
pub use wav::write_wav;

/// Why no sound came out.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The sound is longer than a WAV can hold.
    #[error("{seconds} s of sound at {rate_hz} Hz do not fit a WAV (4 GiB); choose a lower --rate")]
    TooLong {
        /// Length, s.
        seconds: u64,
        /// Output rate, Hz.
        rate_hz: u32,
    },
    /// An option cannot be fulfilled.
    #[error("{0}")]
    Option(String),
    /// The output failed.
    #[error("writing: {0}")]
    Io(#[from] std::io::Error),
    /// The progress callback said stop.
    #[error("cancelled")]
    Cancelled,
}
