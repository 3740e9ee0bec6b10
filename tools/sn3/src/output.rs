//! Files that appear under their name only when they are complete.

use crate::WrongUsage;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const BUFFER_BYTES: usize = 256 * 1024;

/// A file being written: beside its final place, moved there at the end, removed otherwise.
pub(crate) struct Output {
    writer: Option<BufWriter<Box<dyn Write>>>,
    /// Temporary and final name; none for the standard output.
    names: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// Begins the file; `-` is the standard output. The file that is read is never written.
    pub(crate) fn create(path: &Path, input: &Path) -> Result<Self> {
        if same_file(path, input) {
            let why = format!("{}: the output is the input", path.display());
            return Err(WrongUsage(why).into());
        }
        watch_for_interrupts();
        if path.as_os_str() == "-" {
            let writer = BufWriter::with_capacity(BUFFER_BYTES, stdout());
            return Ok(Self {
                writer: Some(writer),
                names: None,
            });
        }
        let name = path
            .file_name()
            .with_context(|| format!("{}: not a file name", path.display()))?
            .to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        // What is no file (/dev/null, a pipe) is written in place.
        if path.exists() && !path.is_file() {
            let file = File::create(path).with_context(|| path.display().to_string())?;
            let writer = BufWriter::with_capacity(BUFFER_BYTES, Box::new(file) as Box<dyn Write>);
            return Ok(Self {
                writer: Some(writer),
                names: None,
            });
        }
        let file = File::create(&temporary)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
        let writer = BufWriter::with_capacity(BUFFER_BYTES, Box::new(file) as Box<dyn Write>);
        Ok(Self {
            writer: Some(writer),
            names: Some((temporary, path.to_path_buf())),
        })
    }

    /// Puts the complete file in its place.
    pub(crate) fn finish(self) -> Result<()> {
        self.finish_with(None)
    }

    /// The same, after writing `patch` at an offset where the output is a file.
    pub(crate) fn finish_with(mut self, patch: Option<&(u64, Vec<u8>)>) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.flush()?;
        }
        if let (Some((temporary, _)), Some((offset, bytes))) = (&self.names, patch) {
            let file = File::options().write(true).open(temporary)?;
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, *offset)?;
        }
        if let Some((temporary, path)) = self.names.take() {
            std::fs::rename(&temporary, &path)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if interrupted() {
            return Err(std::io::Error::other("cancelled"));
        }
        match &mut self.writer {
            Some(writer) => writer.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.writer = None;
        if let Some((temporary, _)) = &self.names {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    id(a).is_some() && id(a) == id(b)
}

/// Refuses to put something made of a capture in the place of a capture.
pub(crate) fn spare_captures(path: &Path) -> Result<()> {
    if path.is_file() && is_capture(path) {
        let why = format!(
            "{}: is a capture, and would be lost; name another file",
            path.display()
        );
        return Err(WrongUsage(why).into());
    }
    Ok(())
}

/// By magic, never by name.
pub(crate) fn is_capture(path: &Path) -> bool {
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(3).read_to_end(&mut magic));
    read.is_ok() && [b"SN1", b"SN2", b"SN3"].iter().any(|known| magic == *known)
}

fn stdout() -> Box<dyn Write> {
    Box::new(std::io::stdout().lock())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed since the first output was begun.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn watch_for_interrupts() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // Without a handler Ctrl-C still ends us, and only the temporary file stays behind.
        let _ = ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
    });
}

/// Prints a line; whoever reads it may have seen enough (`sn3 info … | head`).
pub(crate) fn say(line: &str) {
    let printed = writeln!(std::io::stdout(), "{line}");
    if let Err(error) = printed {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("sn3: standard output: {error}");
        }
        std::process::exit(1);
    }
}
