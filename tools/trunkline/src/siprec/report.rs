//! Findings, one a line as they are made, or all at once as JSON.

use serde_json::{Value, json};

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// For information.
    Note,
    Pass,
    Warn,
    Fail,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found in one step.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) step: &'static str,
    pub(super) verdict: Verdict,
    pub(super) text: String,
    /// The section that it is about; empty = none.
    pub(super) rfc: &'static str,
    /// How long an answer took, ms.
    pub(super) took_ms: Option<f64>,
}

impl Finding {
    pub(super) fn new(
        step: &'static str,
        verdict: Verdict,
        rfc: &'static str,
        text: impl Into<String>,
    ) -> Self {
        Self {
            step,
            verdict,
            text: text.into(),
            rfc,
            took_ms: None,
        }
    }
}

/// All findings so far.
#[derive(Debug)]
pub(super) struct Report {
    /// Findings are printed as they come.
    prints: bool,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) const fn new(prints: bool) -> Self {
        Self {
            prints,
            findings: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if self.prints {
            println!("{}", line(&finding));
        }
        self.findings.push(finding);
    }

    pub(super) fn count(&self, verdict: Verdict) -> usize {
        let same = |one: &&Finding| one.verdict == verdict;
        self.findings.iter().filter(same).count()
    }

    /// The gravest of all: at least a pass.
    pub(super) fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|one| one.verdict);
        verdicts.max().unwrap_or(Verdict::Pass).max(Verdict::Pass)
    }

    /// The sum: printed as the last line, or as JSON with what `head` says.
    pub(super) fn finish(&self, mut head: Value) {
        if self.prints {
            println!(
                "{}: {} passed, {} warned of, {} failed",
                self.verdict().name(),
                self.count(Verdict::Pass),
                self.count(Verdict::Warn),
                self.count(Verdict::Fail)
            );
            return;
        }
        let steps: Vec<Value> = self.findings.iter().map(as_json).collect();
        head["result"] = json!(self.verdict().name());
        head["steps"] = json!(steps);
        println!("{head}");
    }
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "step": finding.step,
        "result": finding.verdict.name(),
        "text": finding.text,
        "rfc": finding.rfc,
        "took_ms": finding.took_ms,
    })
}

fn line(finding: &Finding) -> String {
    let took = match finding.took_ms {
        Some(ms) => format!(", {ms:.1} ms"),
        None => String::new(),
    };
    let rfc = match finding.rfc {
        "" => String::new(),
        rfc => format!("  [{rfc}]"),
    };
    // What a peer wrote must not be able to write lines of ours.
    let text: String = finding
        .text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    let word = finding.verdict.name().to_uppercase();
    format!("{word:<5} {:<10} {text}{took}{rfc}", finding.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_decides_and_peers_write_no_lines() {
        let mut report = Report::new(false);
        assert_eq!(report.verdict(), Verdict::Pass);
        report.add(Finding::new("a", Verdict::Note, "", "x"));
        assert_eq!(report.verdict(), Verdict::Pass);
        report.add(Finding::new(
            "b",
            Verdict::Warn,
            "RFC 1",
            "x\nFAIL \u{1b}[1m",
        ));
        assert_eq!(report.verdict(), Verdict::Warn);
        report.add(Finding::new("c", Verdict::Fail, "", "x"));
        assert_eq!(
            (report.verdict(), report.count(Verdict::Fail)),
            (Verdict::Fail, 1)
        );
        let text = line(&report.findings[1]);
        assert!(
            text.starts_with("WARN  b") && text.ends_with("[RFC 1]"),
            "{text}"
        );
        assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text}");
    }
}
