//! Which backend writes a finished recording's files best: tokio's threads, or io_uring.
//!
//! ```sh
//! cargo run --release -p trunkline-sinks --features uring --example file_backends -- /srv/recordings
//! ```
//! Each round writes some files at once, made of chunks in memory, durable before it counts, by each backend
//! in turn. Rates are of bytes durable; CPU is user and system time of the process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trunkline_sinks::delivery::files::{Backend, write_file_by};

const ROUNDS: usize = 7;
/// Bytes of a file, and how many are written at once: a short call, and an hour of G.711 as WAV.
const CASES: [(usize, usize, &str); 3] = [
    (1 << 20, 8, "1 MiB, 8 at once"),
    (64 << 20, 1, "64 MiB, alone"),
    (64 << 20, 4, "64 MiB, 4 at once"),
];

fn main() {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<18} {:<12} {:>24} {:>16}",
        "files", "backend", "MB/s: median (range)", "CPU, ms/GB"
    );
    for (bytes, at_once, name) in CASES {
        let mut measured: Vec<Vec<(f64, f64)>> = vec![Vec::new(); Backend::ALL.len()];
        for round in 0..=ROUNDS {
            for (index, backend) in Backend::ALL.iter().enumerate() {
                let one = measure(*backend, &folder, bytes, at_once);
                // The first round warms up.
                if round > 0 {
                    measured[index].push(one);
                }
            }
        }
        for (backend, rounds) in Backend::ALL.iter().zip(&mut measured) {
            rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (first, middle, last) = (rounds[0].0, rounds[ROUNDS / 2].0, rounds[ROUNDS - 1].0);
            let rate = format!("{middle:.0} ({first:.0}-{last:.0})");
            let cpu = rounds.iter().map(|round| round.1).sum::<f64>() / ROUNDS as f64;
            println!("{name:<18} {:<12} {rate:>24} {cpu:>16.0}", backend.name());
        }
    }
}

/// Megabytes a second, and milliseconds of CPU a gigabyte.
fn measure(backend: Backend, folder: &Path, bytes: usize, at_once: usize) -> (f64, f64) {
    let (begun, cpu) = (Instant::now(), cpu_time());
    std::thread::scope(|scope| {
        for number in 0..at_once {
            let path = folder.join(format!("file-backend-{number}"));
            scope.spawn(move || {
                let piece = vec![0x55_u8; 64 * 1024];
                let produce = |out: &mut dyn Write| {
                    (0..bytes / piece.len()).try_for_each(|_| out.write_all(&piece))
                };
                write_file_by(backend, &path, produce).expect("a writable folder");
                std::fs::remove_file(&path).expect("removed");
            });
        }
    });
    let megabytes = (bytes * at_once) as f64 / 1e6;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_ms = (cpu_time() - cpu).as_secs_f64() * 1e3;
    (megabytes / seconds, cpu_ms / (megabytes / 1e3))
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a process");
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    // Behind the name: utime and stime are the 12th and 13th, in hundredths of a second.
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}
