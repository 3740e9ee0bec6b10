//! The disk by itself: its rates, its cache, and somebody who keeps it busy.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use crate::Outcome;

const BLOCK: usize = 1 << 20;
const ALIGN: usize = 4096;

/// A block that O_DIRECT takes.
struct Block(Vec<u8>, usize);

impl Block {
    fn new() -> Self {
        let bytes = vec![0x5au8; BLOCK + ALIGN];
        let skip = bytes.as_ptr().align_offset(ALIGN);
        Self(bytes, skip)
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + BLOCK]
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// Bytes a second of plain O_DIRECT writes of 1 MiB, one after the other.
pub fn write_rate(directory: &Path, bytes: u64) -> Outcome<f64> {
    let path = directory.join("raw");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    options.custom_flags(OFlag::O_DIRECT.bits());
    let mut file = options.open(&path).map_err(text)?;
    let mut block = Block::new();
    let start = Instant::now();
    for _ in 0..bytes / BLOCK as u64 {
        file.write_all(block.bytes()).map_err(text)?;
    }
    file.sync_data().map_err(text)?;
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(text)?;
    Ok(rate)
}

/// Bytes a second of plain O_DIRECT reads of 1 MiB of these files.
pub fn read_rate(paths: &[PathBuf]) -> Outcome<f64> {
    let mut block = Block::new();
    let mut total = 0;
    let start = Instant::now();
    for path in paths {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_DIRECT.bits());
        let mut file = options.open(path).map_err(text)?;
        loop {
            let count = file.read(block.bytes()).map_err(text)?;
            if count == 0 {
                break;
            }
            total += count as u64;
        }
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

/// Takes files out of the page cache.
pub fn forget(paths: &[PathBuf]) -> Outcome<()> {
    for path in paths {
        let file = File::open(path).map_err(text)?;
        file.sync_all().map_err(text)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Bytes that this process has had read from disks so far.
pub fn bytes_read() -> Outcome<u64> {
    let io = std::fs::read_to_string("/proc/self/io").map_err(text)?;
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes:"));
    let count = line.and_then(|rest| rest.trim().parse().ok());
    count.ok_or_else(|| "/proc/self/io says nothing of read_bytes".to_owned())
}

/// Somebody who writes as much as the disk takes, through the page cache, until dropped.
pub struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    pub fn start(directory: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let path = directory.join("busy");
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let block = vec![0xa5u8; BLOCK];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(mut file) = File::create(&path) else {
                    return;
                };
                for _ in 0..64 {
                    if file.write_all(&block).is_err() {
                        return;
                    }
                }
                let _ = file.sync_data();
            }
            let _ = std::fs::remove_file(&path);
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
