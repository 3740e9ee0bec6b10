//! Results as Markdown: what the terminal shows and what README holds.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::results::{Aim, Ratio, Results, Spread, Verdict, quantity};

/// Between these lines README belongs to [`update_readme`].
const BEGIN: &str = "<!-- measured: begin (cargo xtask bench table) -->";
const END: &str = "<!-- measured: end -->";

/// A run's tables.
#[must_use]
pub fn of_run(results: &Results) -> String {
    let mut text = String::new();
    let versions = if results.versions.is_empty() {
        String::new()
    } else {
        format!("; {}", results.versions.join(", "))
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "`cargo xtask bench {}`, {}: {}, {} cores, Linux {}{versions}. {}\n",
        results.bench,
        results.date,
        results.machine.processor,
        results.machine.cores,
        results.machine.kernel,
        results.method
    );
    write_aims(&mut text, &results.ratios);
    write_values(&mut text, results);
    for note in &results.notes {
        let _ = writeln!(text, "- {note}");
    }
    if !results.notes.is_empty() {
        text.push('\n');
    }
    text
}

fn write_aims(text: &mut String, ratios: &[Ratio]) {
    if ratios.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "| | against | aim | measured: median (all rounds) | |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|");
    for ratio in ratios {
        let aim = match ratio.aim {
            Aim::AtLeast(bound) => format!("at least {bound}{}", unit(ratio)),
            Aim::AtMost(bound) => format!("at most {bound}{}", unit(ratio)),
        };
        let measured = match (ratio.ratio, ratio.verdict) {
            (None, _) => "-".to_owned(),
            (Some(spread), Verdict::Refused) => format!(
                "no ratio: rounds from {} to {}",
                short(spread.lowest),
                short(spread.highest)
            ),
            (Some(spread), _) => {
                let bound = if ratio.at_least { "≥ " } else { "" };
                format!("{bound}{}{}", shown(spread), unit(ratio))
            }
        };
        let verdict = match ratio.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::Refused => "not told apart",
            Verdict::Absent => "not measured",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {aim} | {measured} | {verdict} |",
            ratio.name, ratio.against
        );
    }
    text.push('\n');
}

fn unit(ratio: &Ratio) -> &'static str {
    if ratio.against == "-" { "" } else { " x" }
}

/// Columns: heading, quantity, in thousands.
const COLUMNS: &[(&str, &str, bool)] = &[
    ("edge of loss, k packets/s", quantity::EDGE, true),
    ("at 1.5 x edge", quantity::OVERLOAD, true),
    ("best window", quantity::BEST, true),
    ("CPU a packet, us", quantity::CPU, false),
    ("latency p50, ms", quantity::P50, false),
    ("p99", quantity::P99, false),
    ("p99.9", quantity::P999, false),
    ("KiB a call", quantity::MEMORY, false),
    ("set-ups/s", quantity::SETUPS, false),
    ("set-up p50, ms", quantity::SETUP_P50, false),
    ("set-up p99, ms", quantity::SETUP_P99, false),
    ("CPU a call, us", quantity::CALL_CPU, false),
];

fn write_values(text: &mut String, results: &Results) {
    let used: Vec<_> = COLUMNS
        .iter()
        .filter(|(_, quantity, _)| {
            results
                .series
                .iter()
                .any(|series| series.quantity == *quantity)
        })
        .collect();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for series in &results.series {
        if !rows.contains(&(&series.rig, &series.who)) {
            rows.push((&series.rig, &series.who));
        }
    }
    rows.sort_by_key(|(rig, _)| results.series.iter().position(|series| series.rig == *rig));
    if rows.is_empty() {
        return;
    }
    let headings: Vec<_> = used.iter().map(|(heading, ..)| *heading).collect();
    let _ = writeln!(text, "| rig | | {} |", headings.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(used.len()));
    for (rig, who) in rows {
        let _ = write!(text, "| {rig} | {who} |");
        for (_, quantity, thousands) in &used {
            let at = (rig, who, *quantity);
            let value = results.spread(at).map_or_else(String::new, |spread| {
                let by = if *thousands { 1000.0 } else { 1.0 };
                shown(Spread {
                    median: spread.median / by,
                    lowest: spread.lowest / by,
                    highest: spread.highest / by,
                })
            });
            let at_least = results.series(at).is_some_and(|series| series.at_least);
            let bound = if at_least && !value.is_empty() {
                "≥ "
            } else {
                ""
            };
            let _ = write!(text, " {bound}{value} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn shown(spread: Spread) -> String {
    if spread.lowest == spread.highest {
        return short(spread.median);
    }
    format!(
        "{} ({}-{})",
        short(spread.median),
        short(spread.lowest),
        short(spread.highest)
    )
}

/// Three figures at most where they mean anything.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Replaces README's part with the tables of all results that there are.
///
/// # Errors
/// README has no place for it, or a file cannot be read or written.
pub fn update_readme(readme: &Path, pictures: &Path, all: &[Results]) -> Result<()> {
    let text = std::fs::read_to_string(readme).with_context(|| readme.display().to_string())?;
    let made: Vec<_> = all
        .iter()
        .map(|results| {
            let picture = pictures.join(format!("{}.png", results.bench));
            let shown = if picture.is_file() {
                format!("![{} as bars]({})\n", results.bench, picture.display())
            } else {
                String::new()
            };
            of_run(results) + &shown
        })
        .collect();
    let new = replaced(&text, made.join("\n").trim_end())
        .with_context(|| format!("{} lacks the lines {BEGIN} and {END}", readme.display()))?;
    std::fs::write(readme, new).with_context(|| readme.display().to_string())
}

fn replaced(text: &str, with: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{with}\n\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Compared;

    fn results() -> Results {
        let mut results = Results::new("relay", "Over a veth pair.".to_owned());
        for (round, edge) in [412_000.0, 398_000.0].into_iter().enumerate() {
            results.add(("inline", "trunkline", quantity::EDGE), round, edge);
            results.add(("inline", "rtpengine", quantity::EDGE), round, edge / 2.0);
        }
        results.add(("inline", "trunkline", quantity::CPU), 0, 2.345);
        results.mark_at_least(("inline", "trunkline", quantity::EDGE));
        results.compare(Compared {
            name: "edge",
            of: ("inline", "trunkline", quantity::EDGE),
            with: ("inline", "rtpengine", quantity::EDGE),
            aim: Aim::AtLeast(1.8),
        });
        results.note("a note".to_owned());
        results
    }

    #[test]
    fn the_table_shows_medians_bounds_and_verdicts() {
        let text = of_run(&results());
        assert!(
            text.contains("| inline | trunkline | ≥ 405 (398-412) | 2.35 |"),
            "{text}"
        );
        assert!(
            text.contains("| inline | rtpengine | 202 (199-206) |  |"),
            "{text}"
        );
        assert!(
            text.contains("| edge | rtpengine | at least 1.8 x | ≥ 2.00 x | met |"),
            "{text}"
        );
        assert!(text.contains("- a note"), "{text}");
    }

    #[test]
    fn only_the_marked_part_of_a_readme_changes() {
        let text = format!("# T\n{BEGIN}\nold\n{END}\nrest\n");
        let new = replaced(&text, "new").unwrap();
        assert_eq!(new, format!("# T\n{BEGIN}\n\nnew\n\n{END}\nrest\n"));
        assert_eq!(replaced(&new, "new").unwrap(), new);
        assert_eq!(replaced("# T\n", "new"), None);
    }
}
