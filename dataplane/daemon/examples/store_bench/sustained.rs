//! How much the recorder writes a second, by either writer, with all options off and all on.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use trunkline_dataplane::recorder::{Closed, RecorderNotice};
use trunkline_link::counters::RecorderCounter;
use trunkline_sn3::Keys;
use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::file::Way;
use trunkline_sn3::proof::Signer;

use crate::fill::{Maker, Open, Packets};
use crate::report::Report;
use crate::store::{Store, thread_cpu_s};
use crate::{Amounts, Outcome, disk};

const EXTENTS: usize = 4096;
/// Recordings at once, and extents of each.
const OPEN: usize = 200;
const RECORDING_EXTENTS: u32 = 60;

/// What stands before the 32 bytes of an Ed25519 private key in PKCS#8 (RFC 8410).
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

pub fn run(amounts: &Amounts, directory: &Path, report: &mut Report) -> Outcome<()> {
    let rounds = amounts.rounds.min(3);
    let mut raw = Vec::new();
    for _ in 0..rounds {
        raw.push(disk::write_rate(directory, amounts.sustained_bytes)? / 1e6);
    }
    report.row(
        "sustained",
        "the disk: plain O_DIRECT writes of 1 MiB",
        "MB/s",
        raw,
    );
    for (way, writer) in [(Way::Direct, "extent"), (Way::Mapped, "mmap")] {
        for all in [false, true] {
            let (mut rates, mut costs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let [rate, cost] = measure(directory, way, all, amounts.sustained_bytes)?;
                rates.push(rate);
                costs.push(cost);
            }
            let options = if all {
                "hash chain, encryption, signature"
            } else {
                "all options off"
            };
            let rate = report.row("sustained", &format!("{writer}: {options}"), "MB/s", rates);
            let cost = report.row(
                "sustained",
                &format!("{writer}: {options}, the recorder's CPU"),
                "s/GB",
                costs,
            );
            if way == Way::Direct && all {
                report.keep("all_on_mb_per_s", rate);
                report.keep("all_on_cpu_s_per_gb", cost);
            }
        }
    }
    Ok(())
}

/// Megabytes a second, and CPU seconds a gigabyte.
fn measure(directory: &Path, way: Way, all: bool, bytes: u64) -> Outcome<[f64; 2]> {
    let store = Store::start(directory, EXTENTS, |settings| {
        settings.way = way;
        settings.hash_chain = all;
        settings.disk_wait_ns = 60_000_000_000;
        settings.waiting_max = EXTENTS;
        if all {
            settings.keys = Keys::new(vec![MasterKey::from_bytes(&[7; 32])]);
        }
    })?;
    let signer = if all { Some(signer(directory)?) } else { None };
    let mut feeder = Feeder::new(&store, signer);
    // The first segment's room and the pool's memory are not what is measured.
    feeder.feed(bytes / 8);
    let cpu_before = thread_cpu_s("recorder");
    let before = store.count(RecorderCounter::BytesWritten);
    let start = Instant::now();
    feeder.feed(bytes);
    let seconds = start.elapsed().as_secs_f64();
    let written = (store.count(RecorderCounter::BytesWritten) - before) as f64;
    let cpu = thread_cpu_s("recorder") - cpu_before;
    drop(feeder);
    store.stop()?;
    Ok([written / seconds / 1e6, cpu / (written / 1e9)])
}

/// A signer with a key of no value.
fn signer(directory: &Path) -> Outcome<Signer> {
    let key = [&PKCS8_HEAD[..], &[9; 32]].concat();
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let label = "PRIVATE KEY";
    let pem = format!("-----BEGIN {label}-----\n{key}\n-----END {label}-----\n");
    let path = directory.join("signing.pem");
    std::fs::write(&path, pem).map_err(|error| error.to_string())?;
    Signer::load(&path).map_err(|error| error.to_string())
}

/// Fills extents as fast as the recorder gives them back.
struct Feeder<'a> {
    store: &'a Store,
    signer: Option<Signer>,
    open: Vec<Option<Open>>,
    packets: Packets,
    maker: Maker,
    next: usize,
    recordings: u64,
}

impl<'a> Feeder<'a> {
    fn new(store: &'a Store, signer: Option<Signer>) -> Self {
        Self {
            store,
            signer,
            open: (0..OPEN).map(|_| None).collect(),
            packets: Packets::new(),
            maker: Maker::default(),
            next: 0,
            recordings: 0,
        }
    }

    fn feed(&mut self, bytes: u64) {
        let until = self.store.count(RecorderCounter::BytesWritten) + bytes;
        while self.store.count(RecorderCounter::BytesWritten) < until {
            self.sign_closed();
            let Some(extent) = self.store.queues.ready.pop() else {
                self.store.bell.ring();
                std::thread::sleep(Duration::from_micros(200));
                continue;
            };
            let place = self.next;
            self.next = (self.next + 1) % OPEN;
            let ended = self.open[place].take_if(|open| open.ordinal + 1 >= RECORDING_EXTENTS);
            if let Some(open) = ended {
                let recording = open.recording;
                let _ = self
                    .store
                    .queues
                    .closed
                    .push(Closed::Extent(open.end(&mut self.maker)));
                let session = recording;
                let _ = self
                    .store
                    .queues
                    .closed
                    .push(Closed::Finish { session, recording });
            }
            match &mut self.open[place] {
                Some(open) => {
                    let full = open.go_on(&mut self.maker, extent);
                    let _ = self.store.queues.closed.push(Closed::Extent(full));
                }
                empty => {
                    self.recordings += 1;
                    *empty = Some(Open::start(extent, self.recordings, 0));
                }
            }
            if let Some(open) = &mut self.open[place] {
                for index in 0.. {
                    if !open.append(&mut self.maker, self.packets.payload(index)) {
                        break;
                    }
                }
            }
            self.store.bell.ring();
        }
    }

    /// Signs what control would sign: a receipt with the chain's head for each recording.
    fn sign_closed(&mut self) {
        while let Some(notice) = self.store.notices.pop() {
            if let (
                RecorderNotice::Closed {
                    recording,
                    chain_head,
                    ..
                },
                Some(signer),
            ) = (notice, &self.signer)
            {
                let receipt = format!("{recording} {chain_head:?}");
                std::hint::black_box(signer.sign(receipt.as_bytes()));
            }
        }
    }
}

impl Drop for Feeder<'_> {
    /// What is open is handed over too, so that its recordings are closed.
    fn drop(&mut self) {
        for open in self.open.drain(..).flatten() {
            let recording = open.recording;
            let _ = self
                .store
                .queues
                .closed
                .push(Closed::Extent(open.end(&mut self.maker)));
            let session = recording;
            let _ = self
                .store
                .queues
                .closed
                .push(Closed::Finish { session, recording });
        }
        self.store.bell.ring();
    }
}
