//! rtpgen as both ends of calls whose every packet is accounted for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::binaries::binary;
use crate::process::Process;

/// A run of calls.
#[derive(Debug)]
pub struct Rtpgen {
    process: Process,
    report: PathBuf,
}

impl Rtpgen {
    /// Places calls to `sip_port` that are answered at `listen_port`.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(folder: &Path, sip_port: u16, listen_port: u16, arguments: &[&str]) -> Self {
        let report = folder.join("rtpgen.json");
        let mut command = Command::new(binary("rtpgen"));
        command.args([
            "calls",
            "--json",
            "--to",
            &format!("sip:100@127.0.0.1:{sip_port}"),
        ]);
        command
            .args(["--listen", &format!("127.0.0.1:{listen_port}")])
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(File::create(&report).expect("a report"));
        Self {
            process: Process::start("rtpgen", &mut command),
            report,
        }
    }

    /// Waits for its end and returns its report.
    ///
    /// # Panics
    /// It takes too long or reports nothing.
    #[must_use]
    pub fn finish(mut self, timeout: Duration) -> Value {
        self.process.wait(timeout);
        let text = std::fs::read_to_string(&self.report).expect("a report");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("rtpgen: {error}: {text}"))
    }
}

/// Asserts that all calls were right: set up, heard on both ends, ended.
///
/// # Panics
/// One was not.
pub fn assert_ok(report: &Value) {
    let failures: Vec<&Value> = report["results"]
        .as_array()
        .map(|calls| calls.iter().filter(|call| call["ok"] != true).collect())
        .unwrap_or_default();
    assert!(
        failures.is_empty() && report["ok"] == report["calls"],
        "{failures:#?}"
    );
}
