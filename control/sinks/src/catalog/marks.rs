//! What was decided about recordings from outside, and must outlive the catalog: legal holds, changed
//! attributes, deletions.
//!
//! Segments tell what was captured, not what became of it. So each decision is appended to a journal
//! beside the catalog (`marks.jsonl`, one JSON object a line) and synced before it is answered. A
//! catalog that was removed or damaged is rebuilt from segments and then marked again.

use super::store::{Catalog, CatalogError, StoredRecording};
use super::thread::lock;
use crate::object::{Recording, RecordingState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Mutex;

/// Name of the journal, beside the catalog.
const FILE_NAME: &str = "marks.jsonl";
/// A journal with fewer lines is left as it is.
const LINES_MIN: usize = 1_000;

/// A decision about one recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Legal hold set or lifted.
    Held(bool),
    /// Attributes set, or removed where `None`.
    Attributes(BTreeMap<String, Option<String>>),
    /// Deleted: what stays listed of it, and its number in the segments.
    Deleted(u64, Box<Recording>),
    /// Its extents are erased.
    Erased,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Line {
    recording: String,
    mark: Mark,
}

/// All decisions about one recording.
#[derive(Debug, Default)]
struct Decided {
    /// `None` = nothing was said of it.
    held: Option<bool>,
    attributes: BTreeMap<String, Option<String>>,
    deleted: Option<(u64, Box<Recording>)>,
    erased: bool,
}

impl Decided {
    fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Held(held) => self.held = Some(held),
            Mark::Attributes(changes) => self.attributes.extend(changes),
            Mark::Deleted(number, recording) => self.deleted = Some((number, recording)),
            Mark::Erased => self.erased = true,
        }
    }

    fn is_held(&self) -> bool {
        self.held == Some(true)
    }

    /// The fewest marks that say the same.
    fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        let attributes = Some(&self.attributes).filter(|attributes| !attributes.is_empty());
        let deleted = self.deleted.as_ref();
        let all = [
            attributes.map(|attributes| Mark::Attributes(attributes.clone())),
            self.is_held().then_some(Mark::Held(true)),
            deleted.map(|(number, recording)| Mark::Deleted(*number, recording.clone())),
            self.erased.then_some(Mark::Erased),
        ];
        all.into_iter().flatten()
    }

    fn apply(&self, recording: &mut Recording) {
        if let Some((_, kept)) = &self.deleted {
            recording.clone_from(kept);
            recording.state = RecordingState::Deleted;
        }
        if let Some(held) = self.held {
            recording.held = held;
        }
        for (name, value) in &self.attributes {
            match value {
                Some(value) => recording.attributes.insert(name.clone(), value.clone()),
                None => recording.attributes.remove(name),
            };
        }
    }
}

/// The journal, and what it says.
#[derive(Debug)]
pub(super) struct Marks {
    /// Held while a decision is written; never waited for by readers.
    journal: Mutex<File>,
    decided: Mutex<HashMap<String, Decided>>,
}

impl Marks {
    /// Opens the journal beside a catalog. A line that a crash tore is cut off; one that cannot be
    /// read is reported and left alone.
    pub(super) fn open(catalog: &Path) -> io::Result<Self> {
        let path = catalog.with_file_name(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        let mut decided = HashMap::<String, Decided>::new();
        let mut unreadable = false;
        for (index, line) in text[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Line>(line) {
                Ok(line) => decided.entry(line.recording).or_default().take(line.mark),
                Err(error) => {
                    unreadable = true;
                    tracing::error!(path = %path.display(), line = index + 1, %error, "a mark cannot be read");
                }
            }
        }
        let lines = text[..whole].iter().filter(|byte| **byte == b'\n').count();
        let needed: usize = decided.values().map(|one| one.marks().count()).sum();
        if !unreadable && lines > LINES_MIN && lines > 2 * needed {
            file = compact(&path, &decided)?;
            tracing::info!(path = %path.display(), lines, needed, "journal of marks compacted");
        }
        if let Some(directory) = path.parent().filter(|parent| parent.is_dir()) {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self {
            journal: Mutex::new(file),
            decided: Mutex::new(decided),
        })
    }

    /// Applies what the journal says to a catalog that may have been rebuilt without it.
    ///
    /// The other way round too: a hold that only the catalog knows of (the journal was lost, or a line of
    /// it cannot be read) holds on, whoever may have lifted it.
    pub(super) fn restore(&self, catalog: &mut Catalog) -> Result<(), CatalogError> {
        for id in catalog.held_recordings()? {
            let known = lock(&self.decided).get(&id).and_then(|one| one.held);
            if known.is_none() {
                tracing::warn!(
                    recording = id,
                    "a legal hold was missing in the journal of marks"
                );
                let held = self.decide(&id, Mark::Held(true));
                held.map_err(|source| CatalogError::Io {
                    path: FILE_NAME.into(),
                    source,
                })?;
            }
        }
        let decided = lock(&self.decided);
        for (id, decided) in decided.iter() {
            let found = catalog.recording(id)?;
            let before = found.as_ref().map(|stored| stored.recording.clone());
            let stored = match (found, &decided.deleted) {
                (Some(stored), _) => stored,
                (None, Some((number, recording))) => StoredRecording {
                    recording: (**recording).clone(),
                    storage: super::Storage {
                        number: *number,
                        ..super::Storage::default()
                    },
                },
                (None, None) => continue,
            };
            let StoredRecording {
                mut recording,
                storage,
            } = stored;
            decided.apply(&mut recording);
            if before.as_ref() != Some(&recording) {
                catalog.put_recording(&recording, &storage)?;
            }
        }
        Ok(())
    }

    /// Writes a decision to the disk, then lets it hold, unless what was decided before forbids it.
    pub(super) fn decide(&self, id: &str, mark: Mark) -> Result<Decision, io::Error> {
        let mut journal = lock(&self.journal);
        {
            let decided = lock(&self.decided);
            let now = decided.get(id);
            let deleted = now.is_some_and(|decided| decided.deleted.is_some());
            let held = now.is_some_and(Decided::is_held);
            match &mark {
                Mark::Deleted(..) if deleted => return Ok(Decision::Deleted),
                Mark::Deleted(..) if held => return Ok(Decision::Held),
                Mark::Held(_) | Mark::Attributes(_) if deleted => return Ok(Decision::Deleted),
                _ => {}
            }
        }
        let line = Line {
            recording: id.to_owned(),
            mark,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let length = journal.metadata()?.len();
        if let Err(error) = journal.write_all(&text).and_then(|()| journal.sync_data()) {
            // A torn line must not swallow the next one.
            journal.set_len(length)?;
            return Err(error);
        }
        lock(&self.decided)
            .entry(line.recording)
            .or_default()
            .take(line.mark);
        Ok(Decision::Done)
    }

    /// Shows a recording as it was decided.
    pub(super) fn apply(&self, recording: &mut Recording) {
        if let Some(decided) = lock(&self.decided).get(&recording.id) {
            decided.apply(recording);
        }
    }

    /// Numbers and ids of recordings that were deleted and may not be erased yet.
    pub(super) fn to_erase(&self) -> Vec<(u64, String)> {
        let decided = lock(&self.decided);
        let due = decided.iter().filter(|(_, decided)| !decided.erased);
        due.filter_map(|(id, decided)| {
            let (number, _) = decided.deleted.as_ref()?;
            Some((*number, id.clone()))
        })
        .collect()
    }
}

/// Writes the journal anew beside itself, and puts it in its own place once it is durable.
fn compact(path: &Path, decided: &HashMap<String, Decided>) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut text = Vec::new();
    for (id, decided) in decided {
        for mark in decided.marks() {
            let recording = id.clone();
            serde_json::to_writer(&mut text, &Line { recording, mark })?;
            text.push(b'\n');
        }
    }
    std::fs::write(&beside, &text)?;
    let file = OpenOptions::new().read(true).append(true).open(&beside)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(file)
}

/// What became of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It holds, on the disk too.
    Done,
    /// Not done: the recording is on legal hold.
    Held,
    /// Not done: the recording is deleted already.
    Deleted,
}
