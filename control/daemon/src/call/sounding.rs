//! What a call's parties hear of its recording.

use serde::{Deserialize, Serialize};
use trunkline_link::message::PlayStart;
use trunkline_sinks::Timestamp;

/// What one party hears.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sounding {
    /// Its number on the link; 0 = none yet.
    pub play: u64,
    /// SSRC for where the other party sends nothing.
    pub ssrc: u32,
    /// The recording that it tells of; 0 = one by others alone.
    pub about: u64,
    /// An announcement was heard to its end.
    pub heard: bool,
    /// When a tone was first heard: its entry in the receipt.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// What the dataplane was told to play.
    #[serde(skip)]
    pub told: Option<Box<PlayStart>>,
    /// Plays that the dataplane refused.
    #[serde(skip)]
    pub refusals: u32,
    /// It was noted that nothing can be played.
    #[serde(skip)]
    pub noted: bool,
}

impl Sounding {
    /// What is to be heard of a recording that began.
    pub fn of(about: u64) -> Self {
        Self {
            play: rand::random::<u64>().max(1),
            ssrc: rand::random(),
            about,
            ..Self::default()
        }
    }

    /// The dataplane is another one, or has lost what it was told.
    pub fn forget_told(&mut self) {
        (self.told, self.refusals) = (None, 0);
    }
}
