//! Where a run happens: two network namespaces joined by a veth pair, or the loopback.
//!
//! ```text
//!   namespace LOAD (core 0)                     namespace RELAY (core 1)
//!   parties 198.18.0.1:20000, 20002 ...         the relay under test
//!   sender, sink --- l<pid> 10.99.0.2 ===veth=== r<pid> 10.99.0.1
//! ```
//! The parties' address is on the load's interface, but the kernel there is told that it is not
//! its own, and what comes for it has a hardware address that is not the interface's: it is seen by
//! the sink's packet socket and dropped at once, so no socket a port is needed, nobody is told that a
//! port is closed, and the far end's look at what a relay sends costs next to nothing.

use std::ffi::OsString;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;

use crate::process::{named, run_time_ns};

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const LOAD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// What the relay's side takes for the way to the parties.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 3);
const GATEWAY_MAC: &str = "02:00:00:63:00:03";
/// A benchmark network (RFC 2544).
const PARTIES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const PREFIX: &str = "trunkline-bench-";

/// On which core the relay's receive work in the kernel falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Rig {
    /// On the sender's: a veth pair hands packets over within the sender's call.
    Inline,
    /// On the relay's: the pair's ends poll in kernel threads, pinned to the core of their side.
    OneCore,
    /// As it comes.
    #[value(skip)]
    Loopback,
}

impl Rig {
    /// The name in tables and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::OneCore => "one-core",
            Self::Loopback => "loopback",
        }
    }
}

/// The two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is measured.
    Relay,
    /// Sender and sink.
    Load,
}

/// The recorder's port: of no party, and of no relay.
const RECORDER_PORT: u16 = 9_000;

/// Where the parties of all calls are.
#[derive(Debug, Clone, Copy)]
pub struct Parties {
    /// All have this one.
    pub address: Ipv4Addr,
    /// Port of the first caller.
    pub callers: u16,
    /// Port of the first callee.
    pub callees: u16,
    /// Ports from one call's to the next one's.
    pub step: u16,
    /// Callees send, too.
    pub both_ways: bool,
}

impl Parties {
    /// Caller and callee of a call.
    #[must_use]
    pub fn of(&self, call: u16) -> [SocketAddr; 2] {
        [self.callers, self.callees]
            .map(|first| SocketAddr::new(self.address.into(), first + call * self.step))
    }

    /// Where the sink listens: the first party that hears anything.
    #[must_use]
    pub fn first_heard(&self) -> SocketAddr {
        let port = if self.both_ways {
            self.callers
        } else {
            self.callees
        };
        SocketAddr::new(self.address.into(), port)
    }
}

/// The network, removed when dropped.
pub struct Place {
    /// Number in the names; `None` = loopback.
    tag: Option<u32>,
    relay_core: usize,
    load_core: usize,
}

impl Place {
    /// Builds the namespaces; where that is not allowed the loopback has to do, and the reason is
    /// given.
    ///
    /// # Errors
    /// Fewer than two cores.
    pub fn build(loopback: bool) -> Result<(Self, Option<String>)> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if cores < 2 {
            bail!("two cores are needed: one for the relay, one for the load");
        }
        let mut place = Self {
            tag: None,
            relay_core: cores - 1,
            load_core: 0,
        };
        if loopback {
            return Ok((place, Some("asked for".to_owned())));
        }
        remove_leftovers();
        place.tag = Some(std::process::id());
        match place.make() {
            Ok(()) => Ok((place, None)),
            Err(error) => {
                place.remove();
                place.tag = None;
                Ok((place, Some(format!("{error:#}"))))
            }
        }
    }

    /// The rigs that this place has.
    #[must_use]
    pub fn rigs(&self, only: Option<Rig>) -> Vec<Rig> {
        if self.tag.is_some() {
            only.map_or_else(|| vec![Rig::Inline, Rig::OneCore], |rig| vec![rig])
        } else {
            vec![Rig::Loopback]
        }
    }

    /// In words, for the results.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        if self.tag.is_some() {
            "veth pair between two network namespaces"
        } else {
            "loopback"
        }
    }

    /// The relay's address.
    #[must_use]
    pub fn relay_address(&self) -> IpAddr {
        let address = if self.tag.is_some() {
            RELAY
        } else {
            Ipv4Addr::LOCALHOST
        };
        IpAddr::V4(address)
    }

    /// Where signalling of the load side is reached.
    #[must_use]
    pub fn load_address(&self) -> IpAddr {
        let address = if self.tag.is_some() {
            LOAD
        } else {
            Ipv4Addr::LOCALHOST
        };
        IpAddr::V4(address)
    }

    /// The parties.
    #[must_use]
    pub fn parties(&self) -> Parties {
        match self.tag {
            Some(_) => Parties {
                address: PARTIES,
                callers: 20_000,
                callees: 20_002,
                step: 4,
                both_ways: true,
            },
            // Sender and sink are sockets here, and a port has only one.
            None => Parties {
                address: Ipv4Addr::LOCALHOST,
                callers: 24_000,
                callees: 28_000,
                step: 2,
                both_ways: false,
            },
        }
    }

    /// Where copies for a recorder go: beside the parties, at a port that none of them has.
    #[must_use]
    pub fn recorder(&self) -> SocketAddr {
        SocketAddr::new(self.load_address(), RECORDER_PORT)
    }

    /// First and last media port of a relay.
    #[must_use]
    pub fn relay_ports(&self) -> (u16, u16) {
        match self.tag {
            Some(_) => (10_000, 59_999),
            None => (10_000, 23_999),
        }
    }

    /// The load's interface, for a sink that listens on an address which is not the kernel's own.
    ///
    /// # Errors
    /// Not called on the load's side, or the interface is gone.
    pub fn load_interface(&self) -> Result<Option<u32>> {
        let Some(tag) = self.tag else {
            return Ok(None);
        };
        let index = nix::net::if_::if_nametoindex(format!("l{tag}").as_str())?;
        Ok(Some(index))
    }

    /// The core of a side.
    #[must_use]
    pub fn core(&self, side: Side) -> usize {
        match side {
            Side::Relay => self.relay_core,
            Side::Load => self.load_core,
        }
    }

    /// A command line that runs in a side's namespace, on its core, and that dies with us.
    #[must_use]
    pub fn command(&self, side: Side, program: impl Into<OsString>) -> Vec<OsString> {
        let mut command: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| command.extend(words.iter().map(OsString::from));
        add(&["setpriv", "--pdeathsig", "KILL"]);
        if let Some(tag) = self.tag {
            add(&["ip", "netns", "exec", &namespace(tag, side)]);
        }
        add(&["taskset", "--cpu-list", &self.core(side).to_string()]);
        command.push(program.into());
        command
    }

    /// Brings the calling thread, and those it starts, into a side's namespace.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter(&self, side: Side) -> Result<()> {
        if let Some(tag) = self.tag {
            let path = format!("/run/netns/{}", namespace(tag, side));
            let file = File::open(&path).with_context(|| path.clone())?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| path)?;
        }
        Ok(())
    }

    /// Sets the pair up for a rig.
    ///
    /// # Errors
    /// The kernel or a tool refuses.
    pub fn set_rig(&self, rig: Rig) -> Result<()> {
        let Some(tag) = self.tag else {
            return Ok(());
        };
        let on = rig == Rig::OneCore;
        for side in [Side::Relay, Side::Load] {
            let link = link(tag, side);
            let inside = ["ip", "netns", "exec", &namespace(tag, side)];
            let state = if on { "on" } else { "off" };
            // A veth end hands single packets to its peer's polling thread only without TSO.
            let not_on = if on { "off" } else { "on" };
            let features = ["ethtool", "-K", &link, "gro", state, "tso", not_on];
            let offload = [&inside[..], &features].concat();
            let file = format!("/sys/class/net/{link}/threaded");
            let value = u8::from(on);
            let set = format!("grep -q {value} {file} || echo {value} > {file}");
            let threads = [&inside[..], &["sh", "-c", &set]].concat();
            // A veth end polls (NAPI) only with GRO, and only what polls can have threads.
            if on {
                run(&offload)?;
                run(&threads)?;
            } else {
                run(&threads)?;
                run(&offload)?;
            }
            if !on {
                continue;
            }
            let threads = napi_threads(&link);
            if threads.is_empty() {
                bail!("{link} has no polling thread: the one-core rig needs threaded NAPI");
            }
            let mut cores = CpuSet::new();
            cores.set(self.core(side))?;
            for thread in threads {
                sched_setaffinity(Pid::from_raw(thread), &cores)
                    .with_context(|| format!("cannot pin the polling thread of {link}"))?;
            }
        }
        Ok(())
    }

    /// Run time of the kernel's threads that work for the relay's side.
    #[must_use]
    pub fn kernel_cpu_ns(&self) -> u64 {
        let Some(tag) = self.tag else {
            return 0;
        };
        let mut threads = napi_threads(&link(tag, Side::Relay));
        threads.extend(named(&format!("ksoftirqd/{}\n", self.relay_core)));
        let path = |id: &i32| std::path::PathBuf::from(format!("/proc/{id}"));
        threads.iter().map(|id| run_time_ns(&path(id))).sum()
    }

    fn make(&self) -> Result<()> {
        let tag = self.tag.unwrap_or(0);
        let [relay, load] = [Side::Relay, Side::Load].map(|side| namespace(tag, side));
        let [near, far] = [Side::Relay, Side::Load].map(|side| link(tag, side));
        ip(&format!("netns add {relay}"))?;
        ip(&format!("netns add {load}"))?;
        ip(&format!(
            "-n {relay} link add {near} type veth peer name {far} netns {load}"
        ))?;
        for (name, link, address) in [(&relay, &near, RELAY), (&load, &far, LOAD)] {
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev {link}"))?;
            ip(&format!("-n {name} link set {link} up"))?;
        }
        // Ports that the kernel gives to nobody need no sockets to hold them.
        let (first, last) = self.relay_ports();
        let reserved = format!("echo {first}-{last} > /proc/sys/net/ipv4/ip_local_reserved_ports");
        run(&["ip", "netns", "exec", &relay, "sh", "-c", &reserved])?;
        // Known for good, so that no run waits for an answer.
        let [near_mac, far_mac] = [(&relay, &near), (&load, &far)].map(|(n, l)| mac(n, l));
        ip(&format!(
            "-n {relay} neigh replace {LOAD} lladdr {} dev {near} nud permanent",
            far_mac?
        ))?;
        ip(&format!(
            "-n {load} neigh replace {RELAY} lladdr {} dev {far} nud permanent",
            near_mac?
        ))?;
        ip(&format!("-n {load} addr add {PARTIES}/32 dev {far}"))?;
        ip(&format!(
            "-n {load} route del local {PARTIES} dev {far} table local"
        ))?;
        ip(&format!(
            "-n {relay} neigh replace {GATEWAY} lladdr {GATEWAY_MAC} dev {near} nud permanent"
        ))?;
        ip(&format!("-n {relay} route add {PARTIES}/32 via {GATEWAY}"))
    }

    fn remove(&self) {
        if let Some(tag) = self.tag {
            for side in [Side::Relay, Side::Load] {
                delete_namespace(&namespace(tag, side));
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

fn namespace(tag: u32, side: Side) -> String {
    let side = if side == Side::Relay { "relay" } else { "load" };
    format!("{PREFIX}{tag}-{side}")
}

fn link(tag: u32, side: Side) -> String {
    format!("{}{tag}", if side == Side::Relay { 'r' } else { 'l' })
}

/// Names of kernel threads are cut at 15 characters; the dash keeps r1 and r12 apart.
fn napi_threads(link: &str) -> Vec<i32> {
    named(&format!("napi/{link}-"))
}

/// Those of runs that were killed.
fn remove_leftovers() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !std::path::Path::new(&format!("/proc/{owner}")).exists()) {
            delete_namespace(&name);
        }
    }
}

fn delete_namespace(name: &str) {
    // Gone already is as good.
    let _ = Command::new("ip")
        .args(["netns", "delete", name])
        .stderr(Stdio::null())
        .status();
}

fn mac(namespace: &str, link: &str) -> Result<String> {
    let text = run(&[
        "ip",
        "netns",
        "exec",
        namespace,
        "cat",
        &format!("/sys/class/net/{link}/address"),
    ])?;
    Ok(text.trim().to_owned())
}

fn ip(arguments: &str) -> Result<()> {
    let words: Vec<_> = std::iter::once("ip").chain(arguments.split(' ')).collect();
    run(&words).map(drop)
}

/// Runs a command to its end; gives what it printed.
fn run(words: &[&str]) -> Result<String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{}: cannot start", words[0]))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", words.join(" "), error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
