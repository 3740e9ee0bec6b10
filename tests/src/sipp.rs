//! SIPp as a peer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::ports::{free_media_port, free_port};
use crate::process::Process;
use crate::scenario::Scenario;

/// The G.711 recording that comes with SIPp: 30 ms packets of A-law.
pub const BUNDLED_PCAP: &str = "/usr/share/sip-tester/g711a.pcap";

/// How a SIPp speaks SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP, one connection.
    Tcp,
}

/// Waits until somebody listens at a port of this machine.
///
/// # Panics
/// Nobody does in time.
pub fn wait_until_bound(transport: Transport, port: u16) {
    let tables = match transport {
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    // At any local address, without a remote one.
    let entry = format!(":{port:04X} 00000000");
    let bound =
        |table: &str| std::fs::read_to_string(table).is_ok_and(|text| text.contains(&entry));
    crate::process::eventually("a peer listens", Duration::from_secs(20), || {
        tables.iter().any(|table| bound(table)).then_some(())
    });
}

/// A SIPp that runs.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
    name: String,
    folder: PathBuf,
    /// Its SIP port.
    pub port: u16,
    /// Its RTP port.
    pub media_port: u16,
}

/// What a SIPp needs to run.
#[derive(Debug)]
pub struct SippSetup<'a> {
    /// Its name, for files and messages.
    pub name: &'a str,
    /// What it does.
    pub scenario: Scenario,
    /// Transport.
    pub transport: Transport,
    /// Our SIP port; 0 = any.
    pub port: u16,
    /// Source address.
    pub address: &'a str,
    /// Number of calls.
    pub calls: u32,
}

impl<'a> SippSetup<'a> {
    /// One call over UDP from 127.0.0.1.
    #[must_use]
    pub fn new(name: &'a str, scenario: Scenario) -> Self {
        let (transport, address) = (Transport::Udp, "127.0.0.1");
        Self {
            name,
            scenario,
            transport,
            port: 0,
            address,
            calls: 1,
        }
    }
}

impl Sipp {
    /// Starts a SIPp. `target` is where its requests go (a callee names none); `service` the user called.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(folder: &Path, setup: SippSetup<'_>, target: Option<u16>, service: &str) -> Self {
        let SippSetup {
            name,
            scenario,
            transport,
            port,
            address,
            calls,
        } = setup;
        let file = folder.join(format!("{name}.xml"));
        std::fs::write(&file, scenario.xml()).expect("a scenario");
        let mut command = Command::new("sipp");
        command.arg("-sf").arg(file);
        command.args(["-m", &calls.to_string(), "-l", "10", "-s", service]);
        Self::launch(folder, name, command, transport, (address, port), target)
    }

    /// Starts a SIPp over UDP with one of the scenarios it brings along (`-sn`) and these
    /// further arguments.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_own(
        folder: &Path,
        scenario: &str,
        port: u16,
        arguments: &[&str],
        target: Option<u16>,
    ) -> Self {
        let mut command = Command::new("sipp");
        command.args(["-sn", scenario]).args(arguments);
        let from = ("127.0.0.1", port);
        Self::launch(folder, scenario, command, Transport::Udp, from, target)
    }

    fn launch(
        folder: &Path,
        name: &str,
        mut command: Command,
        transport: Transport,
        (address, port): (&str, u16),
        target: Option<u16>,
    ) -> Self {
        let port = if port == 0 { free_port() } else { port };
        let media_port = free_media_port();
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        command.args(["-i", address, "-p", &port.to_string(), "-mi", address]);
        command.args(["-mp", &media_port.to_string(), "-nostdin"]);
        command.args([
            "-t",
            if transport == Transport::Udp {
                "u1"
            } else {
                "t1"
            },
        ]);
        command.args([
            "-timeout",
            "40",
            "-timeout_error",
            "-trace_err",
            "-error_file",
        ]);
        command
            .arg(file("errors"))
            .args(["-trace_msg", "-message_file"])
            .arg(file("messages"));
        command.current_dir(folder);
        if let Some(target) = target {
            command.arg(format!("127.0.0.1:{target}"));
        }
        let log = std::fs::File::create(file("log")).expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let process = Process::start(name, &mut command);
        let sipp = Self {
            process,
            name: name.to_owned(),
            folder: folder.to_owned(),
            port,
            media_port,
        };
        if target.is_none() {
            // A callee must listen before it is called.
            wait_until_bound(transport, port);
        }
        sipp
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Panics
    /// It fails, or takes too long; says what it logged.
    pub fn finish(self) {
        let _ = self.finish_with_trace();
    }

    /// Waits for its end, which must be a success, and gives the messages it saw.
    ///
    /// # Panics
    /// It fails, or takes too long; says what it logged.
    #[must_use]
    pub fn finish_with_trace(mut self) -> String {
        let status = self.process.wait(Duration::from_secs(60));
        let trace = self.trace();
        assert!(
            status.success(),
            "SIPp {} failed: {status}\n{trace}",
            self.name
        );
        trace
    }

    /// Waits for its end, success or not.
    ///
    /// # Panics
    /// It takes too long.
    #[must_use]
    pub fn ends_well(mut self) -> bool {
        self.process.wait(Duration::from_secs(60)).success()
    }

    /// The messages it sent and received, and its errors.
    #[must_use]
    pub fn trace(&self) -> String {
        let read = |kind: &str| {
            let path = self.folder.join(format!("{}.{kind}", self.name));
            std::fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        ["errors", "messages"]
            .iter()
            .filter_map(|kind| read(kind).ok())
            .collect()
    }
}
