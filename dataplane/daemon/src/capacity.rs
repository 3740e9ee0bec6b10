//! How much fits: open files, sockets, extents. Logged at start, so that an operator knows.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use trunkline_config::Config;
use trunkline_link::limits::EXTENT_BYTES;

/// Descriptors for everything but media: segments, rings, doorbells, the link, logs.
pub const FILES_RESERVED: u64 = 256;
/// Ports of a call with one audio line: RTP and RTCP on both sides.
const PORTS_A_CALL: u64 = 4;
/// Extents of a recorded call: one being filled, one being written.
const EXTENTS_A_CALL: u64 = 2;
/// Bytes that a recorded two-way G.711 call with 20 ms a packet takes on disk each second: 100 frames
/// of 192 bytes, 84 of them in an extent.
const RECORDED_BYTES_PER_S: u64 = 100 * EXTENT_BYTES as u64 / 84;
/// The pool is this large at least and at most.
const EXTENTS_MIN: u64 = 512;
/// See [`EXTENTS_MIN`]: 2 GiB.
const EXTENTS_MAX: u64 = 131_072;
/// Slots of a worker beyond its even share, because calls do not spread evenly.
const SLOTS_SPARE: u64 = 256;

/// What holds a port's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSockets {
    /// A socket, open in conductor and worker.
    Twice,
    /// A socket, open in the conductor; the worker's ring holds it in its own table, which has the
    /// same limit as open files.
    InRing,
    /// A socket that all ports share.
    Shared,
}

/// What fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Limit of open files.
    pub files: u64,
    /// Port pairs of all interfaces.
    pub port_pairs: u64,
    /// Calls that the ports have room for.
    pub calls_by_ports: u64,
    /// Calls that the open files have room for; `None`: calls take none.
    pub calls_by_files: Option<u64>,
    /// Calls that can be recorded at once with the extents that memory has room for.
    pub calls_by_memory: u64,
    /// Extents of the pool.
    pub extents: u64,
    /// Slots of each worker's device.
    pub slots_a_worker: u32,
}

impl Capacity {
    /// Works it out for a number of workers.
    #[must_use]
    pub fn of(
        config: &Config,
        workers: u64,
        sockets: PortSockets,
        files: u64,
        memory_bytes: u64,
    ) -> Self {
        let files_to_use = files.saturating_sub(FILES_RESERVED);
        let port_pairs: u64 = config
            .interfaces
            .iter()
            .map(|interface| u64::from(interface.ports.pairs()))
            .sum();
        let calls_by_ports = 2 * port_pairs / PORTS_A_CALL;
        let calls_by_files = match sockets {
            PortSockets::Twice => Some(files_to_use / 2 / PORTS_A_CALL),
            PortSockets::InRing => Some(files_to_use / PORTS_A_CALL),
            PortSockets::Shared => None,
        };
        let calls = calls_by_ports.min(calls_by_files.unwrap_or(u64::MAX));
        let by_memory = memory_bytes / 4 / EXTENT_BYTES as u64;
        let extents = (calls * EXTENTS_A_CALL + EXTENTS_MIN)
            .min(by_memory)
            .clamp(EXTENTS_MIN, EXTENTS_MAX);
        let share = (2 * port_pairs).div_ceil(workers.max(1)) + SLOTS_SPARE;
        let slots = if workers <= 1 {
            2 * port_pairs
        } else {
            share.min(2 * port_pairs)
        };
        let slots = match sockets {
            PortSockets::Shared => slots,
            // The worker's table of sockets may not be larger than the limit of open files.
            _ => slots.min(files_to_use),
        };
        let slots = slots.max(4);
        let slots_a_worker = u32::try_from(slots).unwrap_or(u32::MAX);
        Self {
            files,
            port_pairs,
            calls_by_ports,
            calls_by_files,
            calls_by_memory: extents / EXTENTS_A_CALL,
            extents,
            slots_a_worker,
        }
    }

    /// Calls with one audio line that fit.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls_by_ports
            .min(self.calls_by_files.unwrap_or(u64::MAX))
    }

    /// What the disk has to take when every call that fits is recorded, bytes/s.
    #[must_use]
    pub fn disk_bytes_per_s(&self) -> u64 {
        self.calls().min(self.calls_by_memory) * RECORDED_BYTES_PER_S
    }

    /// What bounds the calls, in words.
    #[must_use]
    pub fn room(&self) -> String {
        let by_ports = format!("the ports have room for {} calls", self.calls_by_ports);
        match self.calls_by_files {
            None => by_ports,
            Some(calls) => format!(
                "{by_ports}, the limit of open files ({}) for {calls}",
                self.files
            ),
        }
    }

    /// The log line. `without_sockets`: ports have none of their own.
    pub fn log(&self, without_sockets: bool) {
        tracing::info!(
            calls = self.calls(),
            port_pairs = self.port_pairs,
            calls_by_ports = self.calls_by_ports,
            ports = if without_sockets {
                "share sockets"
            } else {
                "have a socket each"
            },
            open_files = self.files,
            calls_by_files = self
                .calls_by_files
                .map_or("any".to_owned(), |calls| calls.to_string()),
            recorded_calls_by_memory = self.calls_by_memory,
            extents = self.extents,
            extents_mib = self.extents * EXTENT_BYTES as u64 / (1 << 20),
            disk_mib_per_s_if_all_are_recorded = self.disk_bytes_per_s() / (1 << 20),
            "capacity"
        );
    }
}

/// What the disk takes, as tried at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRate {
    /// Bytes a second.
    pub bytes_per_s: u64,
}

impl DiskRate {
    /// Writes a file for a tenth of a second or 16 MiB, makes it durable, and removes it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn measure(directory: &Path) -> io::Result<Self> {
        const BLOCK: usize = 1 << 20;
        const BLOCKS_MAX: usize = 16;
        const TIME: Duration = Duration::from_millis(100);
        let path = directory.join("disk-rate");
        let block = vec![0x5au8; BLOCK];
        let start = Instant::now();
        let written = File::create(&path).and_then(|mut file| {
            let mut blocks = 0;
            while blocks < BLOCKS_MAX && (blocks == 0 || start.elapsed() < TIME) {
                file.write_all(&block)?;
                blocks += 1;
            }
            file.sync_data()?;
            Ok(blocks * BLOCK)
        });
        let taken = start.elapsed().as_secs_f64().max(1e-6);
        let removed = std::fs::remove_file(&path);
        let written = written?;
        removed?;
        Ok(Self {
            bytes_per_s: (written as f64 / taken) as u64,
        })
    }

    /// Calls that it has room for when all are recorded.
    #[must_use]
    pub const fn calls(self) -> u64 {
        self.bytes_per_s / RECORDED_BYTES_PER_S
    }

    /// The log line, and a warning when it is less than `calls_max` recorded calls take.
    pub fn log(self, calls_max: Option<u32>) {
        let (disk_mib_per_s, calls) = (self.bytes_per_s / (1 << 20), self.calls());
        tracing::info!(
            disk_mib_per_s,
            recorded_calls_by_disk = calls,
            "capacity of the disk, tried just now"
        );
        if let Some(calls_max) = calls_max.filter(|limit| u64::from(*limit) > calls) {
            tracing::warn!(
                calls_max,
                recorded_calls_by_disk = calls,
                "the disk may not keep up with that many recorded calls"
            );
        }
    }
}

/// Raises the limit of open files as far as it goes: the limit then.
///
/// # Errors
/// Those of getrlimit and setrlimit.
pub fn raise_file_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Bytes of memory to be had, as /proc/meminfo says; a gibibyte where it says nothing.
#[must_use]
pub fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.map_or(1 << 30, |kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_the_least_of_ports_and_files() {
        let config = Config::default();
        let wide = Capacity::of(&config, 1, PortSockets::Twice, 1 << 20, 64 << 30);
        assert_eq!((wide.port_pairs, wide.calls_by_ports), (8192, 4096));
        assert_eq!(wide.slots_a_worker, 16_384);
        assert_eq!(wide.extents, 4096 * 2 + 512);
        assert_eq!(wide.calls_by_memory, 4096 + 256);
        assert_eq!(wide.disk_bytes_per_s(), 4096 * 19_504);
        let narrow = Capacity::of(&config, 4, PortSockets::Twice, 1_024, 1 << 20);
        assert_eq!(narrow.calls_by_files, Some(96));
        assert_eq!(narrow.extents, EXTENTS_MIN);
        assert_eq!(narrow.slots_a_worker, 768);
        let in_rings = Capacity::of(&config, 4, PortSockets::InRing, 20_000, 1 << 20);
        assert_eq!(in_rings.calls_by_files, Some(4_936));
        assert_eq!(in_rings.calls(), 4_096);
        let shared = Capacity::of(&config, 1, PortSockets::Shared, 1_024, 1 << 20);
        assert_eq!((shared.calls(), shared.slots_a_worker), (4_096, 16_384));
    }

    #[test]
    fn a_disk_is_tried_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let rate = DiskRate::measure(directory.path()).unwrap();
        assert!(rate.bytes_per_s > 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let ten = DiskRate {
            bytes_per_s: 10 * RECORDED_BYTES_PER_S,
        };
        assert_eq!(ten.calls(), 10);
        assert!(DiskRate::measure(&directory.path().join("none")).is_err());
    }

    #[test]
    fn this_machine_tells_its_limits() {
        assert!(raise_file_limit().unwrap() >= 256);
        assert!(memory_available() > 1 << 20);
    }
}
