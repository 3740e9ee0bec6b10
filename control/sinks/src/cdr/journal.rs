//! The files of call detail records.
//!
//! ```text
//! cdr.jsonl                              being written
//! cdr-20261127T224639Z-000000000123.jsonl  put aside; the number is that of its first record
//! open.jsonl                             legs that were open when cdr.jsonl began
//! ```
//! A record tells all that is known of its leg, so the last one of a leg is its state. What is open
//! after a crash is told by `open.jsonl` and then `cdr.jsonl` alone: files that were put aside may be
//! taken away.

use super::record::{Cdr, RecordKind};
use crate::Timestamp;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file being written.
pub const RECORDS_FILE: &str = "cdr.jsonl";
/// Legs that were open when that file began.
pub const OPEN_LEGS_FILE: &str = "open.jsonl";

/// How records are kept.
#[derive(Debug, Clone)]
pub struct CdrSettings {
    /// Name of this node in every record.
    pub node: String,
    /// The file is put aside once it is larger.
    pub rotate_bytes: u64,
    /// The file is put aside once it is older; zero = never.
    pub rotate_after: Duration,
}

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("call detail records: {path}: {source}")]
pub struct JournalError {
    /// File.
    pub path: PathBuf,
    /// Cause.
    pub source: io::Error,
}

/// The files, opened for writing.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    settings: CdrSettings,
    file: File,
    bytes: u64,
    /// How many of them, and which sequence, are durable.
    synced: (u64, u64),
    /// Sequence of the last record written, ever.
    sequence: u64,
    /// Sequence of the file's first record; 0 = it has none.
    first: u64,
    began: SystemTime,
}

/// What a walk over lines found.
#[derive(Default)]
struct Walked {
    open: BTreeMap<String, Cdr>,
    first: u64,
    last: u64,
    began: Option<Timestamp>,
}

impl Journal {
    /// Opens the files of a directory, which is made where it is missing; gives the legs that are
    /// open. A line that a crash tore is cut off; one that cannot be read is reported and left alone.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(directory: &Path, settings: CdrSettings) -> Result<(Self, Vec<Cdr>), JournalError> {
        let path = directory.join(RECORDS_FILE);
        let opened = || -> io::Result<(Self, Vec<Cdr>)> {
            fs::create_dir_all(directory)?;
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)?;
            let bytes = cut_torn_line(&file, &path)?;
            File::open(directory)?.sync_all()?;
            let walked = walk(directory)?;
            let mut last = walked.last;
            if let Some(newest) = set_aside(directory)?.last() {
                // Only where open.jsonl is gone too is this one newer.
                let mut older = Walked::default();
                if last == 0 {
                    read_into(newest, &mut older)?;
                }
                last = last.max(older.last);
            }
            let began = walked.began.map_or_else(SystemTime::now, |at| {
                SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
            });
            let journal = Self {
                directory: directory.to_owned(),
                settings,
                file,
                bytes,
                synced: (bytes, last),
                sequence: last,
                first: walked.first,
                began,
            };
            Ok((journal, walked.open.into_values().collect()))
        };
        opened().map_err(|source| JournalError {
            path: path.clone(),
            source,
        })
    }

    /// Numbers the records and writes them, durable when this returns. All or none are written.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn append(&mut self, records: &mut [Cdr]) -> Result<(), JournalError> {
        self.write(records)?;
        self.sync()
    }

    /// Numbers the records and writes them: they outlive this process, and the machine once
    /// [`Self::sync`] has returned. All or none are written. A file that is due is put aside first,
    /// synced: who has to know what is durable syncs before ([`Self::is_rotation_due`]).
    ///
    /// # Errors
    /// Nothing was written; where a file was due, see [`Self::sync`] for what was before.
    pub fn write(&mut self, records: &mut [Cdr]) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        if self.is_rotation_due() {
            // Puts aside only what can be taken back no more.
            self.sync()?;
            self.rotate().map_err(|source| self.error(source))?;
        }
        self.write_lines(records)
            .map_err(|source| self.error(source))
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// It cannot be: all that was written since the last time is taken back.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.synced.0 == self.bytes {
            return Ok(());
        }
        match self.file.sync_data() {
            Ok(()) => {
                self.synced = (self.bytes, self.sequence);
                Ok(())
            }
            Err(source) => {
                (self.bytes, self.sequence) = self.synced;
                let source = self.file.set_len(self.bytes).err().unwrap_or(source);
                Err(self.error(source))
            }
        }
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError {
            path: self.directory.join(RECORDS_FILE),
            source,
        }
    }

    fn write_lines(&mut self, records: &mut [Cdr]) -> io::Result<()> {
        let mut text = Vec::new();
        let mut sequence = self.sequence;
        for record in &mut *records {
            sequence += 1;
            record.sequence = sequence;
            record.node.clone_from(&self.settings.node);
            record.written_at = Timestamp::now();
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        if let Err(error) = self.file.write_all(&text) {
            // A torn line must not swallow the next one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        if self.first == 0 {
            (self.first, self.began) = (self.sequence + 1, SystemTime::now());
        }
        self.bytes += text.len() as u64;
        self.sequence = sequence;
        Ok(())
    }

    /// Whether the file is large or old enough to be put aside: the next write does it.
    #[must_use]
    pub fn is_rotation_due(&self) -> bool {
        let age = self.began.elapsed().unwrap_or_default();
        let old = !self.settings.rotate_after.is_zero() && age >= self.settings.rotate_after;
        self.first != 0 && (old || self.bytes >= self.settings.rotate_bytes)
    }

    /// What a crash leaves between two of these steps, the next start reads to the same end: records
    /// are applied once more to the legs that they led to.
    fn rotate(&mut self) -> io::Result<()> {
        let walked = walk(&self.directory)?;
        let open = self.directory.join(OPEN_LEGS_FILE);
        let fresh = self.directory.join("open.jsonl.new");
        let mut file = File::create(&fresh)?;
        let mut text = Vec::new();
        for record in walked.open.values() {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        let count = Sequence {
            sequence: self.sequence,
        };
        serde_json::to_writer(&mut text, &count)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &open)?;
        let records = self.directory.join(RECORDS_FILE);
        fs::rename(&records, self.directory.join(aside_name(self.first)))?;
        self.file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&records)?;
        (self.bytes, self.first, self.began) = (0, 0, SystemTime::now());
        self.synced = (0, self.sequence);
        File::open(&self.directory)?.sync_all()
    }

    /// All final records that are still there, oldest file first, to the caller's `take`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn finals_after(
        &self,
        sequence: u64,
        mut take: impl FnMut(Cdr),
    ) -> Result<(), JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError { path, source }
        };
        let mut files = set_aside(&self.directory).map_err(failed(&self.directory))?;
        files.push(self.directory.join(RECORDS_FILE));
        for path in files {
            each_record(&path, |record| {
                if record.record == RecordKind::Final && record.sequence > sequence {
                    take(record);
                }
            })
            .map_err(failed(&path))?;
        }
        Ok(())
    }

    /// Sequence of the last record written, ever.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// The last line of `open.jsonl`.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sequence {
    sequence: u64,
}

/// `cdr-20261127T224639Z-000000000123.jsonl`: names sort by time.
fn aside_name(first: u64) -> String {
    let now = Timestamp::now().to_string();
    let compact: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let seconds = compact.split('.').next().unwrap_or_default();
    format!("cdr-{seconds}Z-{first:012}.jsonl")
}

/// Files put aside, oldest first.
fn set_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("cdr-") && text.ends_with(".jsonl") {
            files.push(directory.join(name));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Cuts off what follows the last whole line; gives the length that is left.
fn cut_torn_line(file: &File, path: &Path) -> io::Result<u64> {
    let mut whole = 0;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            if read > 0 {
                tracing::warn!(path = %path.display(), bytes = read, "a torn record is cut off");
                file.set_len(whole)?;
            }
            return Ok(whole);
        }
        whole += read as u64;
    }
}

/// The legs that are open by `open.jsonl` and `cdr.jsonl`.
fn walk(directory: &Path) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let open = directory.join(OPEN_LEGS_FILE);
    if open.exists() {
        read_into(&open, &mut walked)?;
        let text = fs::read_to_string(&open)?;
        let count = text.lines().last().unwrap_or_default();
        if let Ok(count) = serde_json::from_str::<Sequence>(count) {
            walked.last = walked.last.max(count.sequence);
        }
        (walked.first, walked.began) = (0, None);
    }
    read_into(&directory.join(RECORDS_FILE), &mut walked)?;
    Ok(walked)
}

fn read_into(path: &Path, walked: &mut Walked) -> io::Result<()> {
    each_record(path, |record| {
        if walked.first == 0 {
            (walked.first, walked.began) = (record.sequence, Some(record.written_at));
        }
        walked.last = walked.last.max(record.sequence);
        match record.record {
            RecordKind::Final => walked.open.remove(&record.id),
            _ => walked.open.insert(record.id.clone(), record),
        };
    })
}

fn each_record(path: &Path, mut take: impl FnMut(Cdr)) -> io::Result<()> {
    let file = BufReader::new(File::open(path)?);
    for (index, line) in file.split(b'\n').enumerate() {
        let line = line?;
        match serde_json::from_slice::<Cdr>(&line) {
            // The closing line of open.jsonl is no leg.
            Ok(record) if record.id.is_empty() => {}
            Ok(record) => take(record),
            Err(_) if line.is_empty() => {}
            Err(error) => {
                tracing::error!(path = %path.display(), line = index + 1, %error, "a record cannot be read");
            }
        }
    }
    Ok(())
}
