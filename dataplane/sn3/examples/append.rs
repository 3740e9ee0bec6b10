//! What appending a frame costs: ns a frame of 160 bytes, into one log and into 20,000 open extents
//! in turn (the packet path's case: each packet goes to another recording, nothing is in cache).
//!
//! `cargo run --release --package trunkline-sn3 --example append`
//!
//! `append FRAMES` only appends so many to 1,000 open extents, for counting instructions
//! (`cargo xtask instructions`).

use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};
use trunkline_sn3::extent::{Appender, Seal, count_streams, seal};
use trunkline_sn3::layout::EXTENT_BYTES;
use trunkline_sn3::{FrameHead, FrameKind};

const FRAMES: usize = 8_000_000;
const ROUNDS: usize = 5;

fn head(n: usize) -> FrameHead {
    FrameHead {
        kind: FrameKind::Rtp,
        side: (n & 1) as u8,
        media: 0,
        ssrc: 0x1234_5678,
        pt: 0,
        marker: false,
        flags: 0,
        seq: n as u16,
        seq_cycles: 0,
        rtp_ts: n as u32 * 160,
        wall_ns: n as u64 * 20_000_000,
    }
}

/// CPU time of this thread, ns: a busy machine does not count.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock");
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// Appends frames to `open` extents in turn; gives ns a frame.
fn append(memory: &mut [u8], open: usize, frames: usize, packets: &[[u8; 172]]) -> f64 {
    let mut appenders: Vec<Appender> = memory
        .chunks_exact_mut(EXTENT_BYTES)
        .take(open)
        .enumerate()
        .map(|(index, extent)| Appender::open(extent, index as u64 + 1, 0, 0))
        .collect();
    let start = cpu_ns();
    let mut slot = 0;
    for n in 0..frames {
        let extent = &mut memory[slot * EXTENT_BYTES..(slot + 1) * EXTENT_BYTES];
        let payload = &packets[n % packets.len()][12..];
        let appender = &mut appenders[slot];
        if appender
            .append(extent, &head(n), black_box(payload))
            .is_err()
        {
            *appender = Appender::open(extent, slot as u64 + 1, 1, 0);
            let _ = appender.append(extent, &head(n), payload);
        }
        slot += 1;
        if slot == open {
            slot = 0;
        }
    }
    black_box(&appenders);
    (cpu_ns() - start) / frames as f64
}

fn best(runs: impl Iterator<Item = f64>) -> f64 {
    runs.fold(f64::INFINITY, f64::min)
}

fn main() {
    // As many packets as a receive batch holds: their payloads are in cache, as after the relay.
    let packets: Vec<[u8; 172]> = (0..64).map(|n| [n as u8; 172]).collect();
    if let Some(frames) = std::env::args().nth(1) {
        let mut memory = vec![1u8; 1_000 * EXTENT_BYTES];
        let frames = frames.parse().expect("a number of frames");
        black_box(append(&mut memory, 1_000, frames, &packets));
        return;
    }
    for open in [1usize, 1_000, 20_000] {
        let mut memory = vec![1u8; open * EXTENT_BYTES];
        let ns = best((0..ROUNDS).map(|_| append(&mut memory, open, FRAMES, &packets)));
        println!("append, {open:>6} open extents: {ns:6.1} ns a frame of 160 bytes");
    }
    let mut extent = vec![0u8; EXTENT_BYTES];
    let mut appender = Appender::open(&mut extent, 1, 0, 0);
    let mut frames = 0;
    while appender
        .append(&mut extent, &head(frames), &[7; 160])
        .is_ok()
    {
        frames += 1;
    }
    let rounds = 20_000;
    let mut copy = extent.clone();
    let start = cpu_ns();
    for _ in 0..rounds {
        copy.copy_from_slice(&extent);
        let asked = Seal {
            used: appender.used(),
            ..Seal::default()
        };
        black_box(seal(&mut copy, &asked));
    }
    let ns = (cpu_ns() - start) / f64::from(rounds);
    println!(
        "copy and seal a full extent ({frames} frames): {:.2} us",
        ns / 1000.0
    );
    let start = cpu_ns();
    for _ in 0..rounds {
        let mut counts = Vec::new();
        count_streams(&extent, appender.used(), &mut counts);
        black_box(counts);
    }
    let ns = (cpu_ns() - start) / f64::from(rounds);
    println!("count its packets: {:.2} us", ns / 1000.0);
}
