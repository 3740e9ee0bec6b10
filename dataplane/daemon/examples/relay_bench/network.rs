//! Where the packets travel: two namespaces joined by a veth pair, or the loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::generator::{self, Generator};

const RELAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Far parties: a benchmark network (RFC 2544) behind the sender's end, dropped there after the
/// address lookup.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The network and the generator thread in it.
pub struct Network {
    pub relay_address: IpAddr,
    pub far_address: IpAddr,
    pub generator: Generator,
    veth: bool,
}

impl Network {
    /// Must be called before other threads start: it moves the calling thread into a namespace.
    pub fn build(generator_core: usize) -> Self {
        match Self::build_veth(generator_core) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("no namespaces ({error}): loopback");
                let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
                Self {
                    relay_address: loopback,
                    far_address: loopback,
                    generator: generator::start(generator_core, loopback, || Ok(())),
                    veth: false,
                }
            }
        }
    }

    fn build_veth(generator_core: usize) -> Result<Self, String> {
        own_namespace()?;
        ip("link set lo up")?;
        // Sockets of thousands of flows; where it is refused there are fewer ports to be had.
        let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 65000");
        ip("link add relay0 type veth peer name sender0")?;
        ip(&format!("addr add {RELAY}/24 dev relay0"))?;
        ip("link set relay0 up")?;
        let (tell_thread, thread) = mpsc::channel();
        let (tell_moved, moved) = mpsc::channel();
        let generator = generator::start(generator_core, IpAddr::V4(SENDER), move || {
            own_namespace()?;
            // SAFETY: takes no arguments and cannot fail.
            let thread = unsafe { libc::gettid() };
            tell_thread
                .send(thread)
                .map_err(|error| error.to_string())?;
            moved.recv().map_err(|error| error.to_string())?;
            ip("link set lo up")?;
            ip(&format!("addr add {SENDER}/24 dev sender0"))?;
            ip("link set sender0 up")
        });
        let thread = thread.recv().map_err(|error| error.to_string())?;
        ip(&format!("link set sender0 netns {thread}"))?;
        tell_moved.send(()).map_err(|error| error.to_string())?;
        generator.wait_ready()?;
        ip(&format!("route add 198.18.0.0/15 via {SENDER} dev relay0"))?;
        Ok(Self {
            relay_address: IpAddr::V4(RELAY),
            far_address: IpAddr::V4(FAR),
            generator,
            veth: true,
        })
    }

    pub fn describe(&self) -> &'static str {
        if self.veth {
            "veth pair between two namespaces"
        } else {
            "loopback"
        }
    }

    /// Packets that have left towards the far parties as the interface counts them; the referee of
    /// the relay's own count. `None` on the loopback.
    pub fn interface_sent(&self) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("relay0:"))?;
        line.split_whitespace().nth(9)?.parse().ok()
    }
}

fn own_namespace() -> Result<(), String> {
    // SAFETY: takes no pointers; affects this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().to_string())
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("ip: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {status}"))
    }
}

/// Two sockets a flow do not fit the usual soft limit.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Pins the calling thread and puts it before ordinary work: a relay that shares its core batches
/// more and looks cheaper than it is.
pub fn pin(core: usize) {
    // SAFETY: cpu_set_t is plain data; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
    real_time(0, 10);
}

/// Gives a thread (0 = the calling one) a real-time priority where that is allowed.
pub fn real_time(thread: i32, priority: i32) {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameters are live for the call.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) };
}
