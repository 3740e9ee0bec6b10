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
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
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
    deleted: Option<Deletion>,
    erased: bool,
}

#[derive(Debug)]
struct Deletion {
    /// In the segments.
    number: u64,
    /// What stays listed, until it is erased: the catalog has it then, and so has the journal.
    kept: Option<Box<Recording>>,
}

impl Decided {
    fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Held(held) => self.held = Some(held),
            Mark::Attributes(changes) => self.attributes.extend(changes),
            Mark::Deleted(number, recording) => {
                let kept = Some(recording);
                self.deleted = Some(Deletion { number, kept });
            }
            Mark::Erased => {
                self.erased = true;
                if let Some(deletion) = &mut self.deleted {
                    deletion.kept = None;
                }
            }
        }
    }

    fn is_held(&self) -> bool {
        self.held == Some(true)
    }

    /// The fewest marks that say the same, deletions left out.
    fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        let attributes = Some(&self.attributes).filter(|attributes| !attributes.is_empty());
        let attributes = attributes.map(|attributes| Mark::Attributes(attributes.clone()));
        let held = self.is_held().then_some(Mark::Held(true));
        [attributes, held].into_iter().flatten()
    }

    /// How many lines say all of it.
    fn lines(&self) -> usize {
        self.marks().count() + usize::from(self.deleted.is_some()) + usize::from(self.erased)
    }

    fn apply(&self, recording: &mut Recording) {
        if let Some(deletion) = &self.deleted {
            if let Some(kept) = &deletion.kept {
                recording.clone_from(kept);
            }
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

/// The journal, and what it says of recordings that are not erased.
#[derive(Debug)]
pub(super) struct Marks {
    path: PathBuf,
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
        let mut decided = HashMap::<String, Decided>::new();
        let (mut lines, mut unreadable) = (0, false);
        let whole = each_line(&path, |text| {
            lines += 1;
            match serde_json::from_slice::<Line>(text) {
                Ok(line) => decided.entry(line.recording).or_default().take(line.mark),
                Err(error) => {
                    unreadable = true;
                    tracing::error!(path = %path.display(), line = lines, %error, "a mark cannot be read");
                }
            }
            Ok(())
        })?;
        if whole < file.metadata()?.len() {
            file.set_len(whole)?;
        }
        let needed: usize = decided.values().map(Decided::lines).sum();
        if !unreadable && lines > LINES_MIN && lines > 2 * needed {
            file = compact(&path, &decided)?;
            tracing::info!(path = %path.display(), lines, needed, "journal of marks compacted");
        }
        if let Some(directory) = path.parent().filter(|parent| parent.is_dir()) {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self {
            path,
            journal: Mutex::new(file),
            decided: Mutex::new(decided),
        })
    }

    /// Applies what the journal says to a catalog that may have been rebuilt without it.
    ///
    /// The other way round too: a hold that only the catalog knows of (the journal was lost, or a line of
    /// it cannot be read) holds on, whoever may have lifted it.
    pub(super) fn restore(&self, catalog: &mut Catalog) -> Result<(), CatalogError> {
        let io = |source| CatalogError::Io {
            path: self.path.clone(),
            source,
        };
        for id in catalog.held_recordings()? {
            let known = lock(&self.decided).get(&id).and_then(|one| one.held);
            if known.is_none() {
                tracing::warn!(
                    recording = id,
                    "a legal hold was missing in the journal of marks"
                );
                let held = self.decide(&id, Mark::Held(true));
                held.map_err(io)?;
            }
        }
        let mut missing = HashSet::new();
        let mut decided = lock(&self.decided);
        for (id, decided) in decided.iter() {
            let Some(StoredRecording { recording, storage }) = catalog.recording(id)? else {
                if decided.deleted.is_some() {
                    missing.insert(id.clone());
                }
                continue;
            };
            let mut marked = recording.clone();
            decided.apply(&mut marked);
            if marked != recording {
                catalog.put_recording(&marked, &storage)?;
            }
        }
        if !missing.is_empty() {
            let mut failed = None;
            let put = |text: &[u8]| {
                let put = put_deleted(catalog, text, &missing, &decided);
                failed = failed.take().or(put.err());
                Ok(())
            };
            each_line(&self.path, put).map_err(io)?;
            failed.map_or(Ok(()), Err)?;
        }
        decided.retain(|_, decided| !decided.erased);
        Ok(())
    }

    /// What is erased is known by the catalog from now on: every write asked for before is in it.
    pub(super) fn forget_erased(&self) {
        lock(&self.decided).retain(|_, decided| !decided.erased);
    }

    /// Whether anything is known of a recording here.
    pub(super) fn knows(&self, id: &str) -> bool {
        lock(&self.decided).contains_key(id)
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
            let deletion = decided.deleted.as_ref()?;
            Some((deletion.number, id.clone()))
        })
        .collect()
    }
}

/// Hands over each whole line of a journal; gives how many bytes they are.
fn each_line(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut whole, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Ok(whole);
        }
        whole += length as u64;
        if !line.is_empty() {
            take(&line)?;
        }
    }
}

/// Enters the deleted recording of a line, where the catalog misses it.
fn put_deleted(
    catalog: &mut Catalog,
    text: &[u8],
    missing: &HashSet<String>,
    decided: &HashMap<String, Decided>,
) -> Result<(), CatalogError> {
    // What cannot be read was reported before.
    let Ok(Line {
        recording: id,
        mark: Mark::Deleted(number, mut recording),
    }) = serde_json::from_slice(text)
    else {
        return Ok(());
    };
    if !missing.contains(&id) {
        return Ok(());
    }
    if let Some(decided) = decided.get(&id) {
        decided.apply(&mut recording);
    }
    let storage = super::Storage {
        number,
        ..super::Storage::default()
    };
    catalog.put_recording(&recording, &storage)
}

/// Writes the journal anew beside itself, and puts it in its own place once it is durable.
fn compact(path: &Path, decided: &HashMap<String, Decided>) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut new = BufWriter::new(File::create(&beside)?);
    for (id, decided) in decided {
        for mark in decided.marks() {
            let recording = id.clone();
            serde_json::to_writer(&mut new, &Line { recording, mark })?;
            new.write_all(b"\n")?;
        }
    }
    each_line(path, |text| {
        let line = serde_json::from_slice::<Line>(text)?;
        if matches!(line.mark, Mark::Deleted(..) | Mark::Erased) {
            new.write_all(text)?;
            new.write_all(b"\n")?;
        }
        Ok(())
    })?;
    new.flush()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(id: &str) -> Box<Recording> {
        let body = serde_json::json!({
            "id": id, "call_id": "c", "state": "complete", "verdict": "silent",
            "started_at": "2026-11-20T10:00:00.000Z",
        });
        serde_json::from_value(body).expect("a recording")
    }

    #[test]
    fn what_is_erased_is_kept_on_the_disk_and_not_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog.sqlite");
        let marks = Marks::open(&path).expect("opened");
        for number in 1..=300 {
            let id = format!("r{number}");
            let deleted = Mark::Deleted(number, recording(&id));
            assert_eq!(marks.decide(&id, deleted).expect("written"), Decision::Done);
            if number > 1 {
                marks.decide(&id, Mark::Erased).expect("written");
            }
            for held in [true, false] {
                let id = format!("other{number}");
                marks.decide(&id, Mark::Held(held)).expect("written");
            }
        }
        let kept = |marks: &Marks| {
            let decided = lock(&marks.decided);
            let deleted = decided.values().filter_map(|one| one.deleted.as_ref());
            deleted.filter(|deletion| deletion.kept.is_some()).count()
        };
        assert_eq!(kept(&marks), 1, "what is to be erased yet");
        assert_eq!(marks.to_erase(), [(1, "r1".to_owned())]);
        marks.forget_erased();
        assert!(!marks.knows("r2") && marks.knows("r1"));
        drop(marks);

        // A lost catalog gets all of them again, from a journal that was compacted.
        let marks = Marks::open(&path).expect("opened");
        let mut lines = 0;
        let count = |_: &[u8]| {
            lines += 1;
            Ok(())
        };
        each_line(&marks.path, count).expect("read");
        assert_eq!(lines, 1 + 2 * 299);
        assert_eq!(kept(&marks), 1);
        let (mut catalog, _) = Catalog::open(&path).expect("opened");
        marks.restore(&mut catalog).expect("restored");
        assert_eq!(lock(&marks.decided).len(), 301);
        for id in ["r1", "r2", "r300"] {
            let stored = catalog.recording(id).expect("read").expect("there");
            assert!(stored.is_deleted());
            assert_eq!(stored.recording.verdict, recording(id).verdict);
        }
    }
}
