//! What appending and publishing a frame costs a worker: one log, and many open recordings in turn.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use trunkline_link::pool::{Extent, Pool};

use crate::fill::{Maker, Open, Packets};
use crate::report::Report;
use crate::{Amounts, Outcome};

pub fn run(amounts: &Amounts, _: &Path, report: &mut Report) -> Outcome<()> {
    for (count, name) in [
        (1, "one log"),
        (100, "100 open recordings in turn"),
        (20_000, "20,000 open recordings in turn"),
    ] {
        let mut bench = Appending::new(count)?;
        bench.run(amounts.append_frames / 4);
        let rounds = (0..amounts.rounds + 3).map(|_| bench.run(amounts.append_frames / 4));
        let rounds = rounds.collect();
        report.row("append", name, "ns", rounds);
    }
    Ok(())
}

struct Appending {
    open: Vec<Open>,
    spare: VecDeque<Extent>,
    packets: Packets,
    maker: Maker,
    next: usize,
}

impl Appending {
    fn new(count: usize) -> Outcome<Self> {
        let (_, tokens) =
            Pool::create(count + count / 4 + 64).map_err(|error| error.to_string())?;
        let mut spare: VecDeque<Extent> = tokens.into();
        spare.iter_mut().for_each(Extent::prepare);
        let packets = Packets::new();
        let mut maker = Maker::default();
        let mut open = Vec::with_capacity(count);
        for index in 0..count {
            let extent = spare.pop_front().ok_or("too few extents")?;
            let mut one = Open::start(extent, index as u64 + 1, 0);
            // Calls do not start all at once, so their extents do not fill all at once.
            for packet in 0..index * 37 % 83 {
                one.append(&mut maker, packets.payload(packet));
            }
            open.push(one);
        }
        Ok(Self {
            open,
            spare,
            packets,
            maker,
            next: 0,
        })
    }

    /// Nanoseconds a frame, taking up other extents included.
    fn run(&mut self, frames: u64) -> f64 {
        let count = self.open.len();
        let start = Instant::now();
        let mut done = 0;
        while done < frames {
            let first = self.next;
            for index in 0..Packets::BATCH {
                let one = &mut self.open[self.next];
                let payload = self.packets.payload(index);
                if !one.append(&mut self.maker, payload)
                    && let Some(next) = self.spare.pop_front()
                {
                    self.spare.push_back(one.go_on(&mut self.maker, next));
                    one.append(&mut self.maker, payload);
                }
                self.next = if self.next + 1 == count {
                    0
                } else {
                    self.next + 1
                };
            }
            let fenced = self.maker.fence();
            for index in 0..Packets::BATCH.min(count) {
                self.open[(first + index) % count].publish(&fenced);
            }
            done += Packets::BATCH as u64;
        }
        start.elapsed().as_nanos() as f64 / done as f64
    }
}
