//! Read-only bytes of a file: a mapping, or memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// Bytes to read from.
#[derive(Debug)]
pub enum Bytes {
    /// A mapped file.
    Map(Mmap),
    /// Memory.
    Memory(Vec<u8>),
}

impl Bytes {
    /// Maps a file as long as it is now.
    ///
    /// Segments only grow until they are finished and are never cut below what was written, so a
    /// mapping of one stays valid while it is written on. Erasing punches holes, which read as zeros.
    ///
    /// # Errors
    /// Those of opening and mapping; what cannot be mapped (a pipe) is read into memory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() || metadata.len() == 0 {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut file, &mut bytes)?;
            return Ok(Self::Memory(bytes));
        }
        // SAFETY: the mapping is read-only and private to this value. The bytes may change under it
        // when another process writes the file; every reader here treats them as untrusted and
        // bounds-checks each access, and no reference outlives the mapping.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Map(map))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}
