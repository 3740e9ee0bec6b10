//! The catalog: an index of calls and recordings in SQLite, which can be rebuilt from segments.
//!
//! Whole objects are stored as JSON beside the columns that lists are filtered and ordered by. One
//! thread writes ([`CatalogThread`]); readers use connections of their own.

mod audit;
mod cdrs;
mod deliveries;
mod filter;
mod marks;
mod outbox;
mod rebuild;
mod recount;
mod retention;
mod schema;
mod store;
mod thread;

pub use audit::{Audit, AuditException};
pub use cdrs::CdrFilter;
pub use deliveries::{Delivery, DeliveryFilter, DeliveryState, Ordered, StoredCopy, Undelivered};
pub(crate) use filter::user_of;
pub use filter::{CallFilter, Cursor, Listed, NotACursor, Page, RecordingFilter};
pub use marks::{Decision, Mark};
pub use outbox::{CatalogOutbox, MakeArtifact, OutboxSinks, call_meta};
pub use rebuild::{RebuildReport, adopt, rebuild, settle};
pub use recount::count_recording;
pub use retention::{CLASS, RetentionRule, RetentionRules};
pub use store::{Catalog, CatalogError, Storage, StoredRecording};
pub use thread::{CatalogHandle, CatalogThread, CopyEraser};
