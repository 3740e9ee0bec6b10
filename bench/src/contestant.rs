//! Who is measured: how each is started, and told of the calls it is to relay.

use std::ffi::OsString;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trunkline_rtpgen::wire::Flow;

use crate::ng;
use crate::place::{Place, Side};
use crate::process::{Process, slab_bytes};
use crate::sessions::Sessions;

/// A relay under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// Our dataplane process.
    Trunkline,
    /// The same, every call recorded to SN3 segments.
    TrunklineRecord,
    /// The same, every packet copied to a recorder that takes it (and never reads it).
    TrunklineFork,
    /// The same, where the recorder is no longer there: its machine answers by ICMP.
    TrunklineForkGone,
    /// rtpengine in user space, one thread.
    Rtpengine,
    /// The same, every call recorded to a pcap.
    RtpengineRecord,
    /// A bare loop (see [`crate::bare`]).
    Bare,
}

impl Contestant {
    /// The name in tables and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trunkline => "trunkline",
            Self::TrunklineRecord => "trunkline + SN3",
            Self::TrunklineFork => "trunkline + copies",
            Self::TrunklineForkGone => "trunkline + copies, recorder gone",
            Self::Rtpengine => "rtpengine",
            Self::RtpengineRecord => "rtpengine + pcap",
            Self::Bare => "bare loop",
        }
    }
}

/// What all of them are started with.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// Where.
    pub place: &'a Place,
    /// Two flows each.
    pub calls: u32,
    /// Our release programs.
    pub programs: &'a Path,
    /// A directory on the disk that recordings go to; emptied after each run.
    pub record_to: &'a Path,
}

/// A relay that runs.
pub struct Running {
    /// Its process.
    pub process: Process,
    /// From the parties that send to the relay.
    pub flows: Vec<Flow>,
    /// Memory that the calls took: resident and in the kernel, bytes, both since before the first.
    pub call_bytes: u64,
    sessions: Option<Sessions>,
    /// Where it writes what it records.
    recordings: Option<PathBuf>,
    /// Where copies go to.
    _recorder: Option<UdpSocket>,
    _directory: tempfile::TempDir,
}

impl Running {
    /// Fails when a relay that is to record has written nothing: its numbers would be another
    /// relay's.
    ///
    /// # Errors
    /// It has not.
    pub fn check_recordings(&self) -> Result<()> {
        match &self.recordings {
            Some(directory) if bytes_below(directory) == 0 => {
                bail!("nothing was recorded in {}", directory.display())
            }
            _ => Ok(()),
        }
    }

    /// Between two windows: what piled up is taken, and a relay that died is noticed.
    ///
    /// # Errors
    /// It died.
    pub fn tend(&mut self) -> Result<()> {
        if let Some(sessions) = &mut self.sessions {
            sessions.drain();
        }
        self.process.check()
    }
}

impl Stage<'_> {
    fn parties(&self) -> Vec<[SocketAddr; 2]> {
        let parties = self.place.parties();
        (0..self.calls as u16)
            .map(|call| parties.of(call))
            .collect()
    }

    /// Starts a relay and opens all calls in it.
    ///
    /// # Errors
    /// It does not start, or refuses a call.
    pub fn start(&self, who: Contestant) -> Result<Running> {
        let directory = tempfile::Builder::new()
            .prefix("trunkline-bench-")
            .tempdir_in(self.record_to)
            .with_context(|| self.record_to.display().to_string())?;
        let mut running = match who {
            Contestant::Trunkline
            | Contestant::TrunklineRecord
            | Contestant::TrunklineFork
            | Contestant::TrunklineForkGone => self.start_trunkline(directory, who),
            Contestant::Rtpengine => self.start_rtpengine(directory, false),
            Contestant::RtpengineRecord => self.start_rtpengine(directory, true),
            Contestant::Bare => self.start_bare(directory),
        }
        .with_context(|| who.name())?;
        running.tend()?;
        Ok(running)
    }

    fn start_trunkline(&self, directory: tempfile::TempDir, who: Contestant) -> Result<Running> {
        let record = who == Contestant::TrunklineRecord;
        let recorder = match who {
            Contestant::TrunklineFork => Some(self.recorder()?),
            _ => None,
        };
        let (first, last) = self.place.relay_ports();
        let data_dir = directory.path().join("data");
        let config = format!(
            "data_dir = {data_dir:?}\n[dataplane]\ncores = [{}]\naddress = \"{}\"\nports = \"{first}-{last}\"\n",
            self.place.core(Side::Relay),
            self.place.relay_address(),
        );
        let file = directory.path().join("trunkline.toml");
        std::fs::write(&file, config)?;
        let mut command = self
            .place
            .command(Side::Relay, self.programs.join("trunkline-dataplane"));
        command.extend(["--config".into(), file.into_os_string()]);
        let log = directory.path().join("log");
        let mut process = Process::start("trunkline-dataplane", &command, &log)?;
        let socket = data_dir.join("run/dataplane.sock");
        let mut sessions = process.wait_until(|| Sessions::attach(&socket))?;
        let before = memory(&process);
        let parties = self.parties();
        let ports = sessions
            .open(&parties, record)
            .with_context(|| process.log_end())?;
        if recorder.is_some() || who == Contestant::TrunklineForkGone {
            sessions
                .fork(parties.len(), self.place.recorder())
                .with_context(|| process.log_end())?;
        }
        Ok(Running {
            flows: self.flows(&parties, &ports),
            call_bytes: memory(&process).saturating_sub(before),
            process,
            sessions: Some(sessions),
            recordings: record.then_some(data_dir),
            _recorder: recorder,
            _directory: directory,
        })
    }

    /// A recorder's port on the load's side. What comes is thrown away by the kernel once the buffer is full.
    fn recorder(&self) -> Result<UdpSocket> {
        std::thread::scope(|scope| {
            let binding = scope.spawn(|| {
                self.place.enter(Side::Load)?;
                Ok(UdpSocket::bind(self.place.recorder())?)
            });
            binding
                .join()
                .unwrap_or_else(|_| bail!("the recorder panicked"))
        })
    }

    fn start_rtpengine(&self, directory: tempfile::TempDir, record: bool) -> Result<Running> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 2_223));
        let mut command = self.place.command(Side::Relay, "rtpengine");
        let (first, last) = self.place.relay_ports();
        let mut arguments = vec![
            "--foreground".to_owned(),
            "--log-stderr".to_owned(),
            "--log-level=3".to_owned(),
            "--table=-1".to_owned(),
            "--num-threads=1".to_owned(),
            format!("--interface={}", self.place.relay_address()),
            format!("--listen-ng={listen}"),
            format!("--port-min={first}"),
            format!("--port-max={last}"),
        ];
        if record {
            let to = directory.path().join("recordings");
            std::fs::create_dir(&to)?;
            arguments.push(format!("--recording-dir={}", to.display()));
            arguments.push("--recording-method=pcap".to_owned());
        }
        command.extend(arguments.into_iter().map(OsString::from));
        let log = directory.path().join("log");
        let mut process = Process::start("rtpengine", &command, &log)?;
        let parties = self.parties();
        // Its control port is on the loopback of its own namespace.
        let (ports, call_bytes) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                self.place.enter(Side::Relay)?;
                let mut client = ng::Client::new(listen)?;
                process.wait_until(|| client.ping().then_some(()))?;
                let before = memory(&process);
                let calls = parties.iter().zip(1..);
                let ports = calls
                    .map(|(parties, number)| client.call(number, *parties, record))
                    .collect::<Result<Vec<_>>>()
                    .with_context(|| process.log_end())?;
                Ok((ports, memory(&process).saturating_sub(before)))
            });
            asking
                .join()
                .unwrap_or_else(|_| bail!("the ng client panicked"))
        })?;
        Ok(Running {
            flows: self.flows(&parties, &ports),
            call_bytes,
            process,
            sessions: None,
            recordings: record.then(|| directory.path().join("recordings")),
            _recorder: None,
            _directory: directory,
        })
    }

    fn start_bare(&self, directory: tempfile::TempDir) -> Result<Running> {
        let (first, _) = self.place.relay_ports();
        let parties = self.place.parties();
        let own = std::env::current_exe().context("our own program")?;
        let mut command = self.place.command(Side::Relay, own);
        let arguments = [
            "bare".to_owned(),
            format!("--address={}", self.place.relay_address()),
            format!("--port={first}"),
            format!("--parties={}", parties.address),
            format!("--callers={}", parties.callers),
            format!("--callees={}", parties.callees),
            format!("--step={}", parties.step),
            format!("--calls={}", self.calls),
        ];
        command.extend(arguments.map(OsString::from));
        let log = directory.path().join("log");
        let mut process = Process::start("the bare loop", &command, &log)?;
        process.wait_until(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            said.contains("ready").then_some(())
        })?;
        let ports: Vec<_> = (0..self.calls as u16)
            .map(|call| [first + 4 * call, first + 4 * call + 2])
            .collect();
        Ok(Running {
            flows: self.flows(&self.parties(), &ports),
            call_bytes: 0,
            process,
            sessions: None,
            recordings: None,
            _recorder: None,
            _directory: directory,
        })
    }

    fn flows(&self, parties: &[[SocketAddr; 2]], ports: &[[u16; 2]]) -> Vec<Flow> {
        let relay = self.place.relay_address();
        let sending = if self.place.parties().both_ways { 2 } else { 1 };
        let parties = parties.iter().flat_map(|pair| &pair[..sending]);
        let ports = ports.iter().flat_map(|pair| &pair[..sending]);
        parties
            .zip(ports)
            .map(|(from, port)| Flow {
                from: *from,
                to: SocketAddr::new(relay, *port),
            })
            .collect()
    }
}

fn memory(process: &Process) -> u64 {
    process.resident_bytes() + slab_bytes()
}

/// Bytes that the files below a directory take on the disk.
fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
