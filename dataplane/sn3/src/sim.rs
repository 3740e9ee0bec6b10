//! A disk in memory that misbehaves on request: for tests of everything that writes segments.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chain::Link;
use crate::file::{SegmentFile, SegmentStore};
use crate::layout::UNIT;
use crate::map::Bytes;
use crate::reader::SegmentReader;
use crate::segment;

/// The disk, shared by its files.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What was asked of the disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskCall {
    /// A segment of this worker was created, durably.
    Create {
        /// Its number.
        number: u32,
        /// The worker.
        worker: u16,
    },
    /// Bytes were written.
    Write {
        /// Segment.
        number: u32,
        /// Where.
        offset: usize,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// What was written to a segment before is durable.
    Sync {
        /// Segment.
        number: u32,
    },
    /// A segment was cut or extended to this length; not durable by itself.
    Length {
        /// Segment.
        number: u32,
        /// Bytes.
        length: usize,
    },
}

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u32, Content>,
    faults: Faults,
    writes: u64,
    syncs: u64,
    calls: Vec<DiskCall>,
}

/// What goes wrong from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Bytes that all files together may hold; `None` = no limit.
    pub space: Option<u64>,
    /// Writes fail with EIO.
    pub write_errors: bool,
    /// Syncs fail with EIO.
    pub sync_errors: bool,
    /// A write takes this many bytes at most.
    pub write_max: Option<usize>,
    /// Files cannot be created.
    pub create_errors: bool,
}

#[derive(Debug, Default)]
struct Content {
    worker: u16,
    bytes: Vec<u8>,
    synced: Vec<u8>,
    reserved: u64,
}

impl Content {
    fn held(&self) -> u64 {
        self.reserved.max(self.bytes.len() as u64)
    }
}

impl SimDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Changes what goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Forgets everything that was not synced, as a power cut does.
    pub fn crash(&self) {
        for content in self.lock().files.values_mut() {
            content.bytes.clone_from(&content.synced);
        }
    }

    /// Everything that was asked of the disk so far.
    #[must_use]
    pub fn log(&self) -> Vec<DiskCall> {
        self.lock().calls.clone()
    }

    /// The disk as a power cut leaves it after these calls: what was synced is there; of what was not,
    /// each write is there or not, in any order, or torn into sectors of 512 bytes. `pick(n)` chooses
    /// from 0 to n - 1.
    #[must_use]
    pub fn after_power_cut(calls: &[DiskCall], pick: &mut dyn FnMut(usize) -> usize) -> Self {
        let disk = Self::new();
        let mut pending: BTreeMap<u32, Vec<&DiskCall>> = BTreeMap::new();
        for call in calls {
            match call {
                DiskCall::Create { number, worker } => {
                    disk.lock().files.entry(*number).or_default().worker = *worker;
                }
                DiskCall::Sync { number } => {
                    for done in pending.remove(number).unwrap_or_default() {
                        disk.apply(done, &mut |_| true);
                    }
                }
                DiskCall::Write { number, .. } | DiskCall::Length { number, .. } => {
                    pending.entry(*number).or_default().push(call);
                }
            }
        }
        for (_, mut unsynced) in pending {
            while !unsynced.is_empty() {
                let call = unsynced.swap_remove(pick(unsynced.len()));
                match pick(3) {
                    0 => {}
                    1 => disk.apply(call, &mut |_| true),
                    _ => disk.apply(call, &mut |_| pick(2) == 0),
                }
            }
        }
        disk
    }

    /// Does what was asked, for the sectors that `reached` names.
    fn apply(&self, call: &DiskCall, reached: &mut dyn FnMut(usize) -> bool) {
        let mut state = self.lock();
        match call {
            DiskCall::Write {
                number,
                offset,
                bytes,
            } => {
                let content = &mut state.files.entry(*number).or_default().bytes;
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    if !reached(index) {
                        continue;
                    }
                    let at = offset + index * SECTOR;
                    if content.len() < at + sector.len() {
                        content.resize(at + sector.len(), 0);
                    }
                    content[at..at + sector.len()].copy_from_slice(sector);
                }
            }
            DiskCall::Length { number, length } => {
                let content = &mut state.files.entry(*number).or_default().bytes;
                content.resize(*length, 0);
            }
            DiskCall::Create { .. } | DiskCall::Sync { .. } => {}
        }
    }

    /// Bytes of a segment, by number.
    #[must_use]
    pub fn bytes(&self, number: u32) -> Option<Vec<u8>> {
        self.lock()
            .files
            .get(&number)
            .map(|content| content.bytes.clone())
    }

    /// Numbers of the segments.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.lock().files.keys().copied().collect()
    }

    /// Writes and syncs so far.
    #[must_use]
    pub fn calls(&self) -> (u64, u64) {
        let state = self.lock();
        (state.writes, state.syncs)
    }

    /// Puts the segments as files into a directory, for readers.
    ///
    /// # Errors
    /// Those of writing there.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        for (number, content) in &self.lock().files {
            let name = segment::file_name(content.worker, *number);
            std::fs::write(directory.join(name), &content.bytes)?;
        }
        Ok(())
    }
}

impl SegmentStore for SimDisk {
    type File = SimFile;

    fn create(&mut self, worker: u16) -> io::Result<(u32, SimFile)> {
        let mut state = self.lock();
        if state.faults.create_errors {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        let number = state.files.keys().next_back().map_or(1, |last| last + 1);
        state.calls.push(DiskCall::Create { number, worker });
        state.files.insert(
            number,
            Content {
                worker,
                ..Content::default()
            },
        );
        drop(state);
        Ok((
            number,
            SimFile {
                disk: self.clone(),
                number,
            },
        ))
    }

    fn link_of(&self, segment: u32, page: u32) -> Option<Link> {
        let bytes = Bytes::Memory(self.bytes(segment)?);
        let reader = SegmentReader::over(bytes, Path::new("simulated")).ok()?;
        reader.link_at(page)
    }
}

/// A file on a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    number: u32,
}

impl SegmentFile for SimFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        assert!(
            offset.is_multiple_of(UNIT as u64) && bytes.len().is_multiple_of(UNIT),
            "O_DIRECT takes whole units only"
        );
        let mut state = self.disk.lock();
        state.writes += 1;
        let faults = state.faults;
        if faults.write_errors {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        let held: u64 = state.files.values().map(Content::held).sum();
        let content = state.files.entry(self.number).or_default();
        let mut count = bytes.len().min(faults.write_max.unwrap_or(usize::MAX));
        if let Some(space) = faults.space {
            let inside = content.held().saturating_sub(offset);
            let room = inside + space.saturating_sub(held);
            count = count.min(usize::try_from(room).unwrap_or(usize::MAX));
        }
        if count == 0 {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        let start = offset as usize;
        if content.bytes.len() < start + count {
            content.bytes.resize(start + count, 0);
        }
        content.bytes[start..start + count].copy_from_slice(&bytes[..count]);
        state.calls.push(DiskCall::Write {
            number: self.number,
            offset: start,
            bytes: bytes[..count].to_vec(),
        });
        Ok(count)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.syncs += 1;
        if state.faults.sync_errors {
            return Err(io::Error::from_raw_os_error(nix::libc::EIO));
        }
        let content = state.files.entry(self.number).or_default();
        content.synced.clone_from(&content.bytes);
        let number = self.number;
        state.calls.push(DiskCall::Sync { number });
        Ok(())
    }

    fn reserve(&mut self, offset: u64, needed: u64, wanted: u64) -> io::Result<u64> {
        let mut state = self.disk.lock();
        let Some(space) = state.faults.space else {
            return Ok(needed.max(wanted));
        };
        let others = |(number, content): (&u32, &Content)| {
            if *number == self.number {
                0
            } else {
                content.held()
            }
        };
        let room = space.saturating_sub(state.files.iter().map(others).sum());
        let content = state.files.entry(self.number).or_default();
        if content.held() < offset + needed && room < offset + needed {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.reserved = content.reserved.max(offset + needed);
        Ok(needed)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let content = state.files.entry(self.number).or_default();
        content.bytes.resize(length as usize, 0);
        content.reserved = 0;
        let (number, length) = (self.number, length as usize);
        state.calls.push(DiskCall::Length { number, length });
        Ok(())
    }
}
