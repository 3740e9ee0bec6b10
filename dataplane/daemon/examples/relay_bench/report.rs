//! Medians, spreads and ratios, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::measure::Sample;
use crate::network::Network;
use crate::relay::{Io, Variant};

/// All samples, by variant and rate.
pub struct Results {
    variants: Vec<Variant>,
    rates: Vec<Option<u64>>,
    samples: BTreeMap<(Variant, Option<u64>), Vec<Sample>>,
}

/// Median, least and most.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (values[middle - 1] + values[middle]) / 2.0
        } else {
            values[middle]
        };
        Self {
            median,
            least: values[0],
            most: values[values.len() - 1],
        }
    }

    fn json(&self) -> serde_json::Value {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({"median": round(self.median), "least": round(self.least), "most": round(self.most)})
    }
}

impl Results {
    pub fn new(variants: &[Variant], rates: &[Option<u64>]) -> Self {
        Self {
            variants: variants.to_vec(),
            rates: rates.to_vec(),
            samples: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, variant: Variant, rate: Option<u64>, sample: Sample) {
        self.samples
            .entry((variant, rate))
            .or_default()
            .push(sample);
    }

    fn spread(&self, variant: Variant, rate: Option<u64>, of: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples[&(variant, rate)].iter().map(of).collect())
    }

    /// CPU against another variant's: ratio of the medians; its spread is that of the rounds'.
    fn ratio_to(&self, other: Variant, variant: Variant, rate: Option<u64>) -> Spread {
        let base = &self.samples[&(other, rate)];
        let own = &self.samples[&(variant, rate)];
        let cpu = |sample: &Sample| sample.cpu_ns_per_packet;
        let rounds = own
            .iter()
            .zip(base)
            .map(|(own, base)| cpu(own) / cpu(base))
            .collect();
        let spread = Spread::of(rounds);
        let base_median = self.spread(other, rate, cpu).median;
        Spread {
            median: self.spread(variant, rate, cpu).median / base_median,
            ..spread
        }
    }

    fn ratio(&self, variant: Variant, rate: Option<u64>) -> Spread {
        self.ratio_to(self.variants[0], variant, rate)
    }

    /// For each device: what recording costs the worker, where both were measured.
    fn recording(&self, rate: Option<u64>) -> Vec<(Io, Spread)> {
        [Io::Steered, Io::Uring, Io::Mmsg]
            .into_iter()
            .filter(|io| {
                let pair = [Variant::Worker(*io), Variant::Record(*io)];
                pair.iter().all(|variant| self.variants.contains(variant))
            })
            .map(|io| {
                (
                    io,
                    self.ratio_to(Variant::Worker(io), Variant::Record(io), rate),
                )
            })
            .collect()
    }

    pub fn print(&self, network: &Network) {
        println!(
            "relay over {}; medians (least..most of the rounds)",
            network.describe()
        );
        for rate in &self.rates {
            let name = rate.map_or("as many as come".to_owned(), |rate| format!("{rate}"));
            println!("\npackets/s offered: {name}");
            println!(
                "{:<13} {:>26} {:>22} {:>7} {:>8} {:>8}  CPU / {}",
                "relay",
                "CPU ns/packet",
                "packets/s",
                "loss %",
                "syscalls",
                "recorder",
                self.variants[0].name()
            );
            for variant in &self.variants {
                self.print_row(*variant, *rate);
            }
            for (io, ratio) in self.recording(*rate) {
                println!(
                    "recording on {}: {:.2} ({:.2}..{:.2}) of the worker's CPU without",
                    Variant::Worker(io).name(),
                    ratio.median,
                    ratio.least,
                    ratio.most
                );
            }
        }
    }

    fn print_row(&self, variant: Variant, rate: Option<u64>) {
        let cpu = self.spread(variant, rate, |s| s.cpu_ns_per_packet);
        let speed = self.spread(variant, rate, |s| s.packets_per_second);
        let loss = self.spread(variant, rate, |s| s.loss * 100.0);
        let calls = self.spread(variant, rate, |s| s.syscalls_per_packet.unwrap_or(f64::NAN));
        let recorder = self.spread(variant, rate, |s| s.recorder_ns_per_packet);
        let ratio = self.ratio(variant, rate);
        let calls = if calls.median.is_nan() {
            "-".to_owned()
        } else {
            format!("{:.2}", calls.median)
        };
        println!(
            "{:<13} {:>8.0} ({:>6.0}..{:>6.0}) {:>8.0} ({:>5.0}..{:>5.0}k) {:>6.2} {:>8} {:>8.0}  {:.2} ({:.2}..{:.2})",
            variant.name(),
            cpu.median,
            cpu.least,
            cpu.most,
            speed.median,
            speed.least / 1000.0,
            speed.most / 1000.0,
            loss.median,
            calls,
            recorder.median,
            ratio.median,
            ratio.least,
            ratio.most
        );
    }

    pub fn json(&self, flows: u32, measure_ms: u64, network: &Network) -> String {
        let mut rows = Vec::new();
        for rate in &self.rates {
            for variant in &self.variants {
                rows.push(json!({
                    "variant": variant.name(),
                    "offered_packets_per_second": rate,
                    "cpu_ns_per_packet": self.spread(*variant, *rate, |s| s.cpu_ns_per_packet).json(),
                    "cpu_ratio": self.ratio(*variant, *rate).json(),
                    "packets_per_second": self.spread(*variant, *rate, |s| s.packets_per_second).json(),
                    "loss": self.spread(*variant, *rate, |s| s.loss).json(),
                    "syscalls_per_packet": self.spread(*variant, *rate, |s| s.syscalls_per_packet.unwrap_or(f64::NAN)).json(),
                    "recorder_ns_per_packet": self.spread(*variant, *rate, |s| s.recorder_ns_per_packet).json(),
                    "rounds": self.samples[&(*variant, *rate)].len(),
                }));
            }
        }
        let recording: Vec<_> = self
            .rates
            .iter()
            .flat_map(|rate| self.recording(*rate).into_iter().map(move |found| (rate, found)))
            .map(|(rate, (io, ratio))| {
                let device = Variant::Worker(io).name();
                json!({"device": device, "offered_packets_per_second": rate, "cpu_ratio": ratio.json()})
            })
            .collect();
        let value = json!({
            "bench": "relay",
            "machine": machine(),
            "network": network.describe(),
            "flows": flows,
            "measure_ms": measure_ms,
            "ratio_against": self.variants[0].name(),
            "results": rows,
            "recording_against_not": recording,
        });
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        let _ = writeln!(text);
        text
    }
}

fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |line| line.trim_start_matches([' ', '\t', ':']));
    // Without it the relay shares its core with whatever else runs.
    // SAFETY: takes no pointers.
    let real_time = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_FIFO;
    json!({
        "processor": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "real_time_priority": real_time,
        "load_1_min": read("/proc/loadavg").split_whitespace().next(),
    })
}
