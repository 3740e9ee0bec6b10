//! Measured values, and the ratios that may be drawn from them.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What is measured of a contestant in a rig. The unit is part of the name.
pub mod quantity {
    /// Highest packets/s with less than 0.1 % lost.
    pub const EDGE: &str = "edge_packets_per_second";
    /// Delivered packets/s at one and a half times the edge.
    pub const OVERLOAD: &str = "overload_goodput_packets_per_second";
    /// Delivered packets/s in the best of all windows.
    pub const BEST: &str = "best_goodput_packets_per_second";
    /// CPU of the relay's threads and of its side's kernel threads, a delivered packet.
    pub const CPU: &str = "cpu_us_per_packet";
    /// One way through the relay, at half of rtpengine's edge.
    pub const P50: &str = "latency_p50_ms";
    /// See [`P50`].
    pub const P99: &str = "latency_p99_ms";
    /// See [`P50`].
    pub const P999: &str = "latency_p999_ms";
    /// Resident memory and kernel objects.
    pub const MEMORY: &str = "memory_kib_per_call";
    /// Calls set up a second without a failure.
    pub const SETUPS: &str = "setups_per_second";
    /// From INVITE to its 200, at half of the lowest edge.
    pub const SETUP_P50: &str = "setup_p50_ms";
    /// See [`SETUP_P50`].
    pub const SETUP_P99: &str = "setup_p99_ms";
    /// CPU of all signalling and media processes, a whole call.
    pub const CALL_CPU: &str = "cpu_us_per_call";
}

/// Values of one quantity, one a round; a round that gave none holds `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Rig.
    pub rig: String,
    /// Who.
    pub who: String,
    /// What, with its unit.
    pub quantity: String,
    /// A value a round.
    pub rounds: Vec<Option<f64>>,
    /// In some round the generator was the limit: the values are lower bounds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// The middle and both ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lowest.
    pub lowest: f64,
    /// Highest.
    pub highest: f64,
}

impl Spread {
    /// `None` of nothing.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            lowest,
            highest,
        })
    }
}

/// A number that the project set itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

/// What a ratio says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The aim is reached in the median.
    Met,
    /// It is not.
    Missed,
    /// The rounds differ from each other by more than the two contestants do: no ratio is drawn.
    Refused,
    /// There is nothing to compare.
    Absent,
}

/// One contestant's quantity against another's, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// As in the table of aims.
    pub name: String,
    /// Against whom.
    pub against: String,
    /// Of the rounds' own ratios.
    pub ratio: Option<Spread>,
    /// The aim.
    pub aim: Aim,
    /// Whether it is reached.
    pub verdict: Verdict,
    /// A value is a lower bound, because the generator was the limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// A question for [`Results::ratio`]: (rig, who, quantity) of both sides.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// As in the table of aims.
    pub name: &'a str,
    /// What is to be judged.
    pub of: (&'a str, &'a str, &'a str),
    /// What it is compared with.
    pub with: (&'a str, &'a str, &'a str),
    /// The aim.
    pub aim: Aim,
}

/// The machine of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// As /proc/cpuinfo names it.
    pub processor: String,
    /// Cores.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Load average of the last minute before the run.
    pub load_1_min: String,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Name of the benchmark.
    pub bench: String,
    /// Day of the run, UTC.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Versions of what we are compared with.
    pub versions: Vec<String>,
    /// Network and settings, in words.
    pub method: String,
    /// Everything measured.
    pub series: Vec<Series>,
    /// Ratios and aims.
    pub ratios: Vec<Ratio>,
    /// What the run leaves out, or could not do.
    pub notes: Vec<String>,
}

impl Results {
    /// Empty, on this machine, today.
    #[must_use]
    pub fn new(bench: &str, method: String) -> Self {
        Self {
            bench: bench.to_owned(),
            date: today(),
            machine: machine(),
            versions: Vec::new(),
            method,
            series: Vec::new(),
            ratios: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a round's value.
    pub fn add(&mut self, at: (&str, &str, &str), round: usize, value: f64) {
        let series = self.find_or_make(at);
        if series.rounds.len() <= round {
            series.rounds.resize(round + 1, None);
        }
        series.rounds[round] = Some(value);
    }

    /// Says that values of a series are lower bounds.
    pub fn mark_at_least(&mut self, at: (&str, &str, &str)) {
        self.find_or_make(at).at_least = true;
    }

    /// Says once what the run leaves out.
    pub fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// A series.
    #[must_use]
    pub fn series(&self, (rig, who, quantity): (&str, &str, &str)) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.rig == rig && series.who == who && series.quantity == quantity)
    }

    /// A series in three numbers.
    #[must_use]
    pub fn spread(&self, at: (&str, &str, &str)) -> Option<Spread> {
        Spread::of(self.series(at)?.rounds.iter().flatten().copied())
    }

    /// Draws a ratio and judges it.
    pub fn compare(&mut self, asked: Compared<'_>) {
        let ratio = self.ratio_of(asked);
        let bound = |at| self.series(at).is_some_and(|series| series.at_least);
        self.ratios.push(Ratio {
            name: asked.name.to_owned(),
            against: asked.with.1.to_owned(),
            verdict: judge(ratio, asked.aim),
            ratio,
            aim: asked.aim,
            at_least: bound(asked.of),
        });
    }

    /// Judges a quantity by itself; the "ratio" is the value.
    pub fn judge(&mut self, name: &str, at: (&str, &str, &str), aim: Aim) {
        let value = self.spread(at);
        self.ratios.push(Ratio {
            name: name.to_owned(),
            against: "-".to_owned(),
            verdict: judge(value, aim),
            ratio: value,
            aim,
            at_least: false,
        });
    }

    fn ratio_of(&self, asked: Compared<'_>) -> Option<Spread> {
        let (of, with) = (self.series(asked.of)?, self.series(asked.with)?);
        let pairs = of.rounds.iter().zip(&with.rounds);
        Spread::of(pairs.filter_map(|(of, with)| Some((*of)? / (*with)?)))
    }

    fn find_or_make(&mut self, at: (&str, &str, &str)) -> &mut Series {
        let (rig, who, quantity) = at;
        let known = self.series.iter().position(|series| {
            series.rig == rig && series.who == who && series.quantity == quantity
        });
        let index = known.unwrap_or_else(|| {
            self.series.push(Series {
                rig: rig.to_owned(),
                who: who.to_owned(),
                quantity: quantity.to_owned(),
                rounds: Vec::new(),
                at_least: false,
            });
            self.series.len() - 1
        });
        &mut self.series[index]
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Reads them again.
    ///
    /// # Errors
    /// No such file, or it holds something else.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// A ratio whose rounds lie further apart than it lies from 1 says nothing, unless all rounds agree
/// about the aim.
fn judge(ratio: Option<Spread>, aim: Aim) -> Verdict {
    let Some(ratio) = ratio else {
        return Verdict::Absent;
    };
    let meets = |value: f64| match aim {
        Aim::AtLeast(bound) => value >= bound,
        Aim::AtMost(bound) => value <= bound,
    };
    let agree = meets(ratio.lowest) == meets(ratio.highest);
    if !agree && ratio.highest - ratio.lowest > (ratio.median - 1.0).abs() {
        Verdict::Refused
    } else if meets(ratio.median) {
        Verdict::Met
    } else {
        Verdict::Missed
    }
}

fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let load = read("/proc/loadavg");
    Machine {
        processor: model.trim_start_matches([' ', '\t', ':']).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_1_min: load.split_whitespace().next().unwrap_or("").to_owned(),
    }
}

fn today() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of so many days after 1 January 1970.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [
        31,
        28 + u64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(lowest: f64, median: f64, highest: f64) -> Option<Spread> {
        Some(Spread {
            median,
            lowest,
            highest,
        })
    }

    #[test]
    fn a_ratio_narrower_than_its_spread_is_refused() {
        let aim = Aim::AtLeast(1.1);
        assert_eq!(judge(spread(0.9, 1.15, 1.3), aim), Verdict::Refused);
        assert_eq!(judge(spread(1.0, 1.15, 1.2), aim), Verdict::Refused);
        assert_eq!(judge(spread(1.8, 2.0, 2.6), aim), Verdict::Met);
        assert_eq!(judge(spread(1.05, 2.0, 2.1), aim), Verdict::Refused);
        assert_eq!(judge(spread(0.5, 0.9, 1.0), aim), Verdict::Missed);
        assert_eq!(
            judge(spread(0.6, 0.7, 0.74), Aim::AtMost(0.75)),
            Verdict::Met
        );
        assert_eq!(judge(None, aim), Verdict::Absent);
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let mut results = Results::new("test", String::new());
        let (ours, theirs) = (("inline", "a", "x"), ("inline", "b", "x"));
        for (round, (of, with)) in [(20.0, 10.0), (90.0, 30.0), (5.0, 2.0)]
            .into_iter()
            .enumerate()
        {
            results.add(ours, round, of);
            results.add(theirs, round, with);
        }
        results.add(ours, 3, 1000.0);
        results.compare(Compared {
            name: "x",
            of: ours,
            with: theirs,
            aim: Aim::AtLeast(2.0),
        });
        assert_eq!(results.ratios[0].ratio, spread(2.0, 2.5, 3.0));
        assert_eq!(results.ratios[0].verdict, Verdict::Met);
    }

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_784), (2026, 11, 27));
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, f64::NAN, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(
            (spread.lowest, spread.median, spread.highest),
            (1.0, 2.5, 4.0)
        );
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
