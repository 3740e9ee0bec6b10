//! Two network namespaces of the test's own, joined by veth pairs: ours (the calling thread) and a
//! far one. It takes root.
#![allow(unsafe_code)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// The far namespace, as a thread that stands in it.
pub struct Far {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

/// Brings the calling thread into a namespace of its own with a loopback; false, with a word, where
/// that is not allowed.
pub fn own_namespace() -> bool {
    // SAFETY: takes no pointers; affects this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("not tested: {}", std::io::Error::last_os_error());
        return false;
    }
    ip("link set lo up");
    true
}

#[track_caller]
pub fn run(program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments}: {status}");
}

#[track_caller]
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

impl Far {
    /// A far namespace without interfaces.
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            assert!(own_namespace());
            // SAFETY: takes no arguments and cannot fail.
            tell.send(unsafe { libc::gettid() }).unwrap();
            while let Ok(job) = queue.recv() {
                job();
            }
        });
        let thread = told.recv().unwrap();
        Self { jobs, thread }
    }

    /// Does something in the far namespace.
    pub fn act<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || {
            let _ = tell.send(job());
        };
        self.jobs.send(Box::new(job)).unwrap();
        told.recv().expect("the far thread has panicked")
    }

    pub fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.act(move || ip(&arguments));
    }

    /// A socket there.
    pub fn bind(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        let socket = self.act(move || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Joins the namespaces by `here{number}` and `there{number}`, addresses with their prefix
    /// lengths.
    pub fn join(&self, number: u8, here: &[&str], there: &[&str]) {
        let (ours, theirs) = (format!("here{number}"), format!("there{number}"));
        ip(&format!("link add {ours} type veth peer name {theirs}"));
        ip(&format!("link set {theirs} netns {}", self.thread));
        for address in here {
            ip(&format!(
                "addr add {address} dev {ours}{}",
                no_check(address)
            ));
        }
        ip(&format!("link set {ours} up"));
        for address in there {
            self.ip(&format!(
                "addr add {address} dev {theirs}{}",
                no_check(address)
            ));
        }
        self.ip(&format!("link set {theirs} up"));
    }
}

/// IPv6 addresses are usable at once without the check for duplicates.
fn no_check(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// Writes a setting of this thread's namespace.
#[allow(dead_code)]
pub fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{setting}"), value)
        .unwrap_or_else(|error| panic!("{setting}: {error}"));
}

#[allow(dead_code)]
pub fn bind(address: &str) -> (UdpSocket, SocketAddr) {
    let address: IpAddr = address.parse().unwrap();
    let socket = UdpSocket::bind((address, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
