//! `kind = "directory"`: a recording's files in a directory, each there whole or not at all.

use super::files::write_file;
use super::making::{Making, name_of};
use super::{Place, failed, hours};
use crate::catalog::{CopyEraser, StoredCopy};
use crate::object::Recording;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};
use trunkline_config::{DirectorySink, FileFormat, Files};
use trunkline_hooks::{CallMeta, FinishError, RecordingArtifact, RecordingResult, RecordingSink};

pub(super) struct Directory {
    place: Place,
    root: PathBuf,
    files: Files,
    patience: Duration,
    /// What a process that was killed left half written is removed once.
    cleaned: Once,
}

impl Directory {
    pub(super) fn new(settings: &DirectorySink, place: Place) -> Result<Self, String> {
        let root = std::path::absolute(&settings.path)
            .map_err(|error| format!("{}: {error}", settings.path.display()))?;
        Ok(Self {
            place,
            root,
            files: settings.files.clone(),
            patience: hours(settings.give_up_after_h),
            cleaned: Once::new(),
        })
    }

    /// Where files are while they are written: on the same file system, out of everybody's sight.
    fn partial(&self) -> PathBuf {
        self.root.join(".partial").join(&self.place.name)
    }

    /// What a process that could not note it any more, or forgot it with its catalog, has put here: the
    /// description comes last, so with it all is there.
    fn found(&self, making: &Making<'_>) -> Option<RecordingResult> {
        let description = self.root.join(making.file_name(FileFormat::Json));
        let description = fs::read(description).ok()?;
        let files = making.described(&description)?;
        let is_there = |(name, bytes): &(String, u64)| {
            let path = self.root.join(making.beside(name));
            fs::metadata(path).is_ok_and(|found| found.len() == *bytes)
        };
        let sum: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let whole = files.iter().all(is_there);
        whole.then(|| self.result(&making.name, sum + description.len() as u64))
    }

    fn result(&self, name: &str, bytes: u64) -> RecordingResult {
        RecordingResult {
            url: Some(format!("file://{}", self.root.join(name).display())),
            object_key: Some(name.to_owned()),
            bytes: Some(bytes),
        }
    }

    fn store(&self, mut making: Making<'_>, id: &str) -> io::Result<RecordingResult> {
        let base = self.root.join(&making.name);
        let folder = base.parent().unwrap_or(&self.root);
        if let Some(found) = self.found(&making) {
            // Whoever put it there may have been killed before the names were durable.
            sync_folders(folder, &self.root)?;
            return Ok(found);
        }
        let partial = self.partial();
        self.cleaned.call_once(|| {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&partial);
        });
        fs::create_dir_all(&partial)?;
        let mut written = Vec::new();
        for format in making.formats(&self.files) {
            let beside = partial.join(format!("{id}.{}", format.extension()));
            let made = write_file(&beside, |out| making.write(format, out))?;
            written.push((beside, self.root.join(&made.name)));
            making.made.push(made);
        }
        fs::create_dir_all(folder)?;
        // The description comes last: who sees it finds the others.
        for (beside, target) in &written {
            fs::rename(beside, target)?;
        }
        sync_folders(folder, &self.root)?;
        let bytes = making.made.iter().map(|made| made.bytes).sum();
        Ok(self.result(&making.name, bytes))
    }

    /// Removes the files of a name.
    fn remove(&self, name: &str) -> io::Result<()> {
        for format in FileFormat::ALL {
            let path = self.root.join(format!("{name}.{}", format.extension()));
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if is_absence(error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

const fn is_absence(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes names durable, up to the root.
fn sync_folders(folder: &Path, root: &Path) -> io::Result<()> {
    let inside = |folder: &&Path| folder.starts_with(root);
    for folder in folder.ancestors().take_while(inside) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

impl RecordingSink for Directory {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        false
    }

    fn takes_pcm(&self) -> bool {
        false
    }

    fn reads_payload(&self) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn parallel(&self) -> usize {
        2
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        let id = &artifact.recording;
        let Some(entry) = self.place.entry(id)? else {
            return Ok(RecordingResult::default());
        };
        let named = |error: io::Error| failed(format!("{}: {error}", self.root.display()));
        let making = Making::open(&self.place.library, &self.files, entry).map_err(named)?;
        let result = self.store(making, id).map_err(named)?;
        // Whoever deleted it meanwhile may have looked here before the files had their names.
        if self.place.library.is_gone(id).map_err(failed)? {
            self.remove(result.object_key.as_deref().unwrap_or_default())
                .map_err(named)?;
            return Ok(RecordingResult::default());
        }
        Ok(result)
    }
}

impl CopyEraser for Directory {
    fn erase(&self, recording: &Recording, copies: &[StoredCopy]) -> io::Result<()> {
        let own = copies.iter().filter(|copy| copy.sink == self.place.name);
        let known: Vec<&String> = own
            .filter_map(|copy| copy.result.object_key.as_ref())
            .collect();
        if !known.is_empty() && !self.root.is_dir() {
            let why = format!("{} is not there now", self.root.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        // Another template may have named it than the one of today.
        self.remove(&name_of(&self.files, recording))?;
        for name in known {
            self.remove(name)?;
        }
        Ok(())
    }
}
