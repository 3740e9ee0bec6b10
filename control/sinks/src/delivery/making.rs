//! What sinks make of a recording: its files, one after the other, the description last.

use crate::Timestamp;
use crate::library::{Entry, Library, wav_plan, write_wav_of};
use crate::object::{Recording, Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use trunkline_config::{FileFormat, Files, NameField};
use trunkline_sn3::Capture;
use trunkline_sn3::evidence::KeyChoice;

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// What it is.
    pub(super) format: FileFormat,
    /// Its name with extension.
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// Hexadecimal.
    pub(super) sha256: String,
}

/// A recording whose files are being made.
pub(super) struct Making<'a> {
    library: &'a Library,
    entry: Entry,
    /// `None`: nothing could be kept of it, so there is only the description.
    capture: Option<Capture>,
    /// The files' name without extension.
    pub(super) name: String,
    /// Those made so far.
    pub(super) made: Vec<Made>,
}

impl<'a> Making<'a> {
    /// Opens a recording. One whose frames are known to be on disk and are not found there now is an
    /// error: a description alone would pass for a copy, and let retention delete what comes back.
    pub(super) fn open(library: &'a Library, files: &Files, entry: Entry) -> io::Result<Self> {
        let capture = library.capture(&entry.stored).map_err(io::Error::other)?;
        if capture.is_none() && entry.stored.storage.last().is_some() {
            return Err(io::Error::other(
                "its frames are not where the catalog says",
            ));
        }
        Ok(Self {
            name: name_of(files, &entry.stored.recording),
            library,
            entry,
            capture,
            made: Vec::new(),
        })
    }

    /// The formats that can be made.
    pub(super) fn formats(&self, files: &Files) -> Vec<FileFormat> {
        let all = files.formats.iter().copied();
        all.filter(|format| *format == FileFormat::Json || self.capture.is_some())
            .collect()
    }

    /// The lengths of the files that a description found at the place is about, by name without folder;
    /// `None` when it is not this recording's, as it is now.
    pub(super) fn described(&self, description: &[u8]) -> Option<Vec<(String, u64)>> {
        let found: Value = serde_json::from_slice(description).ok()?;
        let recording = &self.entry.stored.recording;
        // One that has gone on since is another thing than what lies there.
        let ended_at = serde_json::to_value(recording.ended_at).ok()?;
        let own = found["recording"]["id"] == recording.id.as_str()
            && found["recording"]["ended_at"] == ended_at;
        let file =
            |file: &Value| Some((file["name"].as_str()?.to_owned(), file["bytes"].as_u64()?));
        let files = found["files"].as_array().filter(|_| own)?;
        files.iter().map(file).collect()
    }

    /// Where a file of a description lies, beside that.
    pub(super) fn beside(&self, name: &str) -> String {
        match self.name.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/{name}"),
            None => name.to_owned(),
        }
    }

    /// The name of a file.
    pub(super) fn file_name(&self, format: FileFormat) -> String {
        format!("{}.{}", self.name, format.extension())
    }

    /// Writes a file's bytes; gives what it is to be known by.
    pub(super) fn write(&self, format: FileFormat, out: &mut dyn Write) -> io::Result<Made> {
        let mut out = Hashing {
            out,
            hasher: Sha256::new(),
            bytes: 0,
        };
        match (format, &self.capture) {
            (FileFormat::Sn3, Some(capture)) => {
                capture.export(&mut out)?;
            }
            (FileFormat::Wav, Some(capture)) => {
                let plan = wav_plan(capture).map_err(io::Error::other)?;
                write_wav_of(capture, &plan, &mut out)?;
            }
            (FileFormat::Evidence, Some(capture)) => {
                let (mut file, _) =
                    self.library
                        .evidence(&self.entry, capture, KeyChoice::Withheld)?;
                io::copy(&mut file, &mut out)?;
            }
            _ => {
                serde_json::to_writer_pretty(&mut out, &self.description()?)?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()?;
        Ok(Made {
            format,
            name: self.file_name(format),
            bytes: out.bytes,
            sha256: hex(&out.hasher.finalize()),
        })
    }

    /// The sidecar: what is known, and the other files with their hashes.
    fn description(&self) -> serde_json::Result<Value> {
        let file = |made: &Made| {
            let name = made.name.rsplit('/').next();
            json!({"name": name, "bytes": made.bytes, "sha256": made.sha256})
        };
        let damages = self.capture.iter().flat_map(Capture::damages);
        let mut description = self.entry.to_json()?;
        description["format"] = "trunkline-recording".into();
        description["version"] = 1.into();
        description["made_at"] = Timestamp::now().to_string().into();
        description["files"] = self.made.iter().map(file).collect();
        description["damages"] = damages.map(|damage| damage.what.clone()).collect();
        Ok(description)
    }
}

/// A recording's name by its template.
pub(super) fn name_of(files: &Files, recording: &Recording) -> String {
    let start = recording.started_at.to_string();
    let part = |range: std::ops::Range<usize>| start.get(range).unwrap_or_default().to_owned();
    let user = |role| {
        let mut own = recording.participants.iter();
        let found = own.find(|participant| participant.role == role);
        found
            .and_then(|participant| crate::catalog::user_of(&participant.uri))
            .unwrap_or_default()
    };
    files.template.fill(|field| match field {
        NameField::Recording => recording.id.clone(),
        NameField::Call => recording.call_id.clone(),
        NameField::Date => part(0..10),
        NameField::Year => part(0..4),
        NameField::Month => part(5..7),
        NameField::Day => part(8..10),
        NameField::Time => part(11..19).replace(':', ""),
        NameField::Tenant => recording.tenant.clone().unwrap_or_default(),
        NameField::Caller => user(Role::Caller),
        NameField::Callee => user(Role::Callee),
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hashes and counts what passes.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
