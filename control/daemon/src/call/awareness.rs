//! What a call's parties know and wish of its recording.

use serde::{Deserialize, Serialize};
use trunkline_link::message::Side;
use trunkline_sdp::{RecordPreference, RecordState};
use trunkline_sinks::Timestamp;

/// What the parties know and wish, by [`Side`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Awareness {
    /// What each has acknowledged to have been told, and when.
    pub acknowledged: [Option<(RecordState, Timestamp)>; 2],
    /// What it has refused to be told. It is not told so again by itself.
    pub refused: [Option<RecordState>; 2],
    /// What each wished last.
    pub wishes: [RecordPreference; 2],
    /// What a party's wish has done to the recording; nothing that still lasts, where it is `None`.
    pub done: Option<RecordPreference>,
}

impl Awareness {
    /// What the wishes come to.
    pub fn wish(&self) -> RecordPreference {
        self.wishes[0].with(self.wishes[1])
    }

    /// The side has somebody else, who knows of nothing.
    pub fn forget(&mut self, side: Side) {
        let index = side as usize;
        (self.acknowledged[index], self.refused[index]) = (None, None);
    }
}
