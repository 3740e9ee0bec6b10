//! Figures as they are shown and kept.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::Outcome;

/// Packets a second of a two-way G.711 call with 20 ms a packet.
const CALL_PACKETS_PER_S: f64 = 100.0;
/// CPU of the relay for a packet on the wire in the one-core rig (`bench/results/relay.json`), without
/// capture, ns.
const RELAY_NS: f64 = 2_180.0;

/// All figures of a run.
pub struct Report {
    sections: BTreeMap<String, Value>,
    figures: BTreeMap<&'static str, f64>,
    quick: bool,
}

impl Report {
    pub fn new(quick: bool) -> Self {
        Self {
            sections: BTreeMap::new(),
            figures: BTreeMap::new(),
            quick,
        }
    }

    /// Prints a row and keeps it: least, median and greatest of the rounds.
    pub fn row(&mut self, section: &str, name: &str, unit: &str, mut rounds: Vec<f64>) -> f64 {
        rounds.sort_by(f64::total_cmp);
        let [least, median, greatest] = match rounds.as_slice() {
            [] => [0.0; 3],
            all => [all[0], all[all.len() / 2], all[all.len() - 1]],
        };
        println!("  {name:<58} {median:>10.2} {unit:<8} ({least:.2}-{greatest:.2})");
        let rows = self
            .sections
            .entry(section.to_owned())
            .or_insert_with(|| json!([]));
        if let Value::Array(rows) = rows {
            rows.push(json!({
                "name": name, "unit": unit, "median": median, "least": least,
                "greatest": greatest, "rounds": rounds.len(),
            }));
        }
        median
    }

    /// Keeps a figure for the sums at the end.
    pub fn keep(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    /// What 10,000 calls take, from the measured parts.
    pub fn conclude(&mut self) {
        let get = |name: &str| self.figures.get(name).copied();
        let (Some(capture), Some(bytes), Some(disk), Some(cpu)) = (
            get("capture_ns"),
            get("call_bytes_per_s"),
            get("all_on_mb_per_s"),
            get("all_on_cpu_s_per_gb"),
        ) else {
            return;
        };
        println!("\n10,000 recorded calls of G.711 on 8 workers, by arithmetic");
        let packets = 10_000.0 / 8.0 * CALL_PACKETS_PER_S;
        let worker = packets * (RELAY_NS + capture) / 1e9 * 100.0;
        let rate = 10_000.0 * bytes / 1e6;
        let rows = [
            ("each worker's core: 125,000 packets/s", "%", worker),
            ("to the disk", "MB/s", rate),
            (
                "of what the recorder wrote with all options on",
                "%",
                rate / disk * 100.0,
            ),
            (
                "the recorder's core, all options on",
                "%",
                rate / 1e3 * cpu * 100.0,
            ),
        ];
        for (name, unit, value) in rows {
            self.row("capacity", name, unit, vec![value]);
        }
    }

    pub fn save(&self, path: &Path) -> Outcome<()> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let json = json!({
            "benchmark": "store",
            "unix_time_s": now.map_or(0, |since| since.as_secs()),
            "machine": {
                "processor": model,
                "cores": std::thread::available_parallelism().map_or(0, usize::from),
                "kernel": kernel.trim(),
            },
            "quick": self.quick,
            "sections": self.sections,
        });
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}
