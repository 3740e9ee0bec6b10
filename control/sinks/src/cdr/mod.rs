//! Call detail records: one for each leg of a call and for each attempt to make one, as JSON Lines.
//!
//! The file is written ahead: a leg's record is there from its INVITE on, so that a process that dies
//! leaves behind what it owed. The last record of a leg says `final`; there is exactly one. The
//! catalog holds those too, and gets them from here ([`CdrThread`]). `docs/cdr.md` tells every field.

mod journal;
mod record;
mod thread;

pub use journal::{CdrSettings, Journal, JournalError, OPEN_LEGS_FILE, RECORDS_FILE};
pub use record::{Attempt, Cdr, CdrRecording, Direction, RecordKind, TransferStep};
pub use thread::{CdrHandle, CdrThread};
