//! Who is measured at signalling: our two processes, Kamailio, or nobody between the ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::place::{Place, Side};
use crate::process::Process;

const KAMAILIO: &str = include_str!("../scenarios/kamailio.cfg");
/// Where a system under test listens.
const PORT: u16 = 9_060;
/// Our own HTTP.
pub const API_PORT: u16 = 9_080;
/// Where the callee does.
pub const CALLEE_PORT: u16 = 9_070;

/// A system that calls go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Our control and dataplane: a B2BUA with a media session a call.
    Trunkline,
    /// A stateful proxy that records routes; it does less.
    Kamailio,
    /// Nothing: what the load itself reaches.
    Nobody,
}

impl System {
    /// The name in tables and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trunkline => "trunkline",
            Self::Kamailio => "kamailio",
            Self::Nobody => "nobody between (the load's own limit)",
        }
    }
}

/// One that runs, with the callee behind it.
pub struct Running {
    /// Its processes; ours: control first.
    pub processes: Vec<Process>,
    /// Where calls are sent.
    pub to: SocketAddr,
    /// Files of this run.
    pub directory: tempfile::TempDir,
    callee: Process,
}

impl Running {
    /// Run time of all processes and their children.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.processes.iter().map(Process::family_cpu_ns).sum()
    }

    /// Fails when a process ended.
    ///
    /// # Errors
    /// It names the one that did.
    pub fn check(&mut self) -> Result<()> {
        self.callee.check()?;
        self.processes.iter_mut().try_for_each(Process::check)
    }
}

/// Starts a system and the callee, and waits until it takes calls.
///
/// # Errors
/// A program does not start.
pub fn start(place: &Place, programs: &Path, record_to: &Path, system: System) -> Result<Running> {
    let directory = tempfile::Builder::new()
        .prefix("trunkline-bench-")
        .tempdir_in(record_to)?;
    let callee = crate::sipp::callee(place, directory.path(), CALLEE_PORT)?;
    let callee_address = SocketAddr::new(place.load_address(), CALLEE_PORT);
    let listen = SocketAddr::new(place.relay_address(), PORT);
    let (processes, to) = match system {
        System::Trunkline => {
            let path = directory.path();
            let processes = start_trunkline(place, programs, path, listen, callee_address)?;
            (processes, listen)
        }
        System::Kamailio => {
            let process = start_kamailio(place, directory.path(), listen, callee_address)?;
            (vec![process], listen)
        }
        System::Nobody => (Vec::new(), callee_address),
    };
    let mut running = Running {
        processes,
        to,
        directory,
        callee,
    };
    // SIPp says nothing when it is ready.
    std::thread::sleep(Duration::from_millis(500));
    running.check()?;
    Ok(running)
}

fn start_trunkline(
    place: &Place,
    programs: &Path,
    directory: &Path,
    listen: SocketAddr,
    callee: SocketAddr,
) -> Result<Vec<Process>> {
    let (first, last) = place.relay_ports();
    let (data_dir, core) = (directory.join("data"), place.core(Side::Relay));
    let config = format!(
        "data_dir = {data_dir:?}\n\
         [dataplane]\ncores = [{core}]\naddress = \"{}\"\nports = \"{first}-{last}\"\n\
         [control]\nhttp = \"127.0.0.1:{API_PORT}\"\n\
         [sip]\nlisten = [\"udp:{listen}\"]\nallow = [\"{}/32\"]\n\
         [[route]]\nnext = \"sip:{callee}\"\n",
        listen.ip(),
        callee.ip(),
    );
    let file = directory.join("trunkline.toml");
    std::fs::write(&file, config)?;
    let start = |name: &str| {
        let mut command = place.command(Side::Relay, programs.join(name));
        command.extend(["--config".into(), file.clone().into_os_string()]);
        Process::start(name, &command, &directory.join(format!("{name}.log")))
    };
    let mut dataplane = start("trunkline-dataplane")?;
    let socket = data_dir.join("run/dataplane.sock");
    dataplane.wait_until(|| socket.exists().then_some(()))?;
    let mut control = start("trunkline-control")?;
    wait_for_port(&mut control, listen.port())?;
    Ok(vec![control, dataplane])
}

fn start_kamailio(
    place: &Place,
    directory: &Path,
    listen: SocketAddr,
    callee: SocketAddr,
) -> Result<Process> {
    let config = KAMAILIO
        .replace("LISTEN", &listen.to_string())
        .replace("CALLEE", &callee.to_string());
    let file = directory.join("kamailio.cfg");
    std::fs::write(&file, config)?;
    let mut command = place.command(Side::Relay, "kamailio");
    command.extend(["-DD", "-E", "-m", "512", "-f"].map(Into::into));
    command.extend([
        file.into_os_string(),
        "-Y".into(),
        directory.into(),
        "-w".into(),
    ]);
    command.push(directory.into());
    let mut process = Process::start("kamailio", &command, &directory.join("kamailio.log"))
        .context("Debian package kamailio")?;
    wait_for_port(&mut process, listen.port())?;
    Ok(process)
}

/// The text of our metrics.
///
/// # Errors
/// Control does not answer.
pub fn metrics(api: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits until a UDP port is bound in the process's namespace.
fn wait_for_port(process: &mut Process, port: u16) -> Result<()> {
    let table = format!("/proc/{}/net/udp", process.id());
    let wanted = format!(":{port:04X}");
    process.wait_until(|| {
        let text = std::fs::read_to_string(&table).unwrap_or_default();
        let bound = |line: &str| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|at| at.ends_with(&wanted))
        };
        text.lines().any(bound).then_some(())
    })
}
