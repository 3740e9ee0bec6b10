//! Files of finished recordings, written and made durable.

mod threaded;
#[cfg(feature = "uring")]
mod uring;

use std::io::{self, Write};
use std::path::Path;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes handed over at once, and how many of these may wait.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNKS_WAITING_MAX: usize = 4;

/// What writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// tokio's pool of threads.
    Tokio,
    /// io_uring.
    #[cfg(feature = "uring")]
    Uring,
}

impl Backend {
    /// All that are built in.
    pub const ALL: &'static [Self] = &[
        Self::Tokio,
        #[cfg(feature = "uring")]
        Self::Uring,
    ];

    /// The best one that this machine allows.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(feature = "uring")]
        if uring::is_allowed() {
            return Self::Uring;
        }
        Self::Tokio
    }

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            #[cfg(feature = "uring")]
            Self::Uring => "tokio-uring",
        }
    }
}

/// Writes a new file by the best backend; it is durable on return, its name is not.
///
/// # Errors
/// Those of the disk and of `produce`; the file is gone then.
pub fn write_file<T: Send>(
    path: &Path,
    produce: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send,
) -> io::Result<T> {
    write_file_by(Backend::best(), path, produce)
}

/// [`write_file`] by a backend. `produce` runs on a thread of its own.
///
/// # Errors
/// As [`write_file`].
pub fn write_file_by<T: Send>(
    backend: Backend,
    path: &Path,
    produce: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send,
) -> io::Result<T> {
    let (chunks, received) = channel(CHUNKS_WAITING_MAX);
    let result = std::thread::scope(|scope| {
        let producer = std::thread::Builder::new()
            .name("make-file".to_owned())
            .spawn_scoped(scope, move || {
                let mut out = Chunks {
                    chunks,
                    buffer: Vec::with_capacity(CHUNK_BYTES),
                };
                let made = produce(&mut out)?;
                out.flush()?;
                Ok(made)
            })?;
        let written = match backend {
            Backend::Tokio => threaded::write(path, received),
            #[cfg(feature = "uring")]
            Backend::Uring => uring::write(path, received),
        };
        let produced = producer.join();
        let produced = produced.unwrap_or_else(|_| Err(io::Error::other("making it panicked")));
        // What the disk says explains why nothing more could be produced.
        written.and(produced)
    });
    result.inspect_err(|_| {
        // It may not even have been made.
        let _ = std::fs::remove_file(path);
    })
}

/// Hands written bytes over in chunks; waits while the disk is slow.
struct Chunks {
    chunks: Sender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        // Nobody receives any more: the disk refused.
        self.chunks
            .blocking_send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

type Incoming = Receiver<Vec<u8>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_writes_what_was_produced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for backend in Backend::ALL {
            for bytes in [0, 1, CHUNK_BYTES, 5 * CHUNK_BYTES + 17] {
                let content: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
                let produced = write_file_by(*backend, &path, |out| {
                    content
                        .chunks(1000)
                        .try_for_each(|piece| out.write_all(piece))?;
                    Ok(content.len())
                });
                assert_eq!(produced.unwrap(), bytes);
                assert_eq!(std::fs::read(&path).unwrap(), content, "{}", backend.name());
            }
        }
    }

    #[test]
    fn what_fails_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for backend in Backend::ALL {
            let failed = write_file_by(*backend, &path, |out| {
                out.write_all(&[1; 3 * CHUNK_BYTES])?;
                Err::<(), _>(io::Error::other("the source broke off"))
            });
            let error = failed.unwrap_err().to_string();
            assert_eq!(error, "the source broke off", "{}", backend.name());
            assert!(!path.exists());
            let nowhere = folder.path().join("no/such/file");
            let produce = |out: &mut dyn Write| out.write_all(&[1; 9 * CHUNK_BYTES]);
            let refused = write_file_by(*backend, &nowhere, produce).unwrap_err();
            assert_eq!(
                refused.kind(),
                io::ErrorKind::NotFound,
                "{}",
                backend.name()
            );
        }
    }
}
