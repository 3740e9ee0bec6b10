//! `trunkline up` in a directory of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::api::Api;
use crate::binaries::binary;
use crate::ports::{RTP_PORTS, free_port, free_rtp_range};
use crate::process::{Process, children, eventually, exists};

/// Appliances running at once in one test program: calls are timed by the clock, and a machine that is too
/// busy disturbs them.
const AT_ONCE: usize = 2;

/// How an appliance is configured.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where calls go, as a `next`; empty = no route at all.
    pub next: String,
    /// The route's `record`.
    pub record: &'static str,
    /// The `[sip]` section's `allow`.
    pub allow: &'static str,
    /// Further lines of the `[sip]` section.
    pub sip: &'static str,
    /// Further top-level keys.
    pub top: &'static str,
    /// Further lines of the `[dataplane]` section.
    pub dataplane: &'static str,
    /// The SIP port; `None` = a free one.
    pub sip_port: Option<u16>,
    /// Where the data goes; `None` = the temporary directory.
    pub data_dir: Option<PathBuf>,
}

impl Setup {
    /// Every call goes to this SIP port of 127.0.0.1 and is recorded.
    #[must_use]
    pub fn to_port(port: u16) -> Self {
        Self {
            next: format!("sip:127.0.0.1:{port}"),
            record: "true",
            allow: r#"["127.0.0.0/8"]"#,
            sip: "",
            top: "",
            dataplane: "",
            sip_port: None,
            data_dir: None,
        }
    }
}

/// A running appliance. Dropping it ends it.
#[derive(Debug)]
pub struct Appliance {
    process: Process,
    /// Its API.
    pub api: Api,
    /// Its SIP port, UDP and TCP.
    pub sip_port: u16,
    /// The first of its RTP ports.
    pub rtp_first: u16,
    folder: TempDir,
    data_dir: PathBuf,
    _turn: Turn,
}

impl Appliance {
    /// Starts one and waits until it takes calls.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn start(setup: &Setup) -> Self {
        let trunkline = binary("trunkline");
        let turn = Turn::take();
        let folder = tempfile::Builder::new()
            .prefix("trunkline-test")
            .tempdir()
            .expect("a folder");
        let sip_port = setup.sip_port.unwrap_or_else(free_port);
        let http_port = free_port();
        let rtp_first = free_rtp_range();
        let data_dir = setup
            .data_dir
            .clone()
            .unwrap_or_else(|| folder.path().join("data"));
        let config = folder.path().join("trunkline.toml");
        let text = config_text(setup, &data_dir, sip_port, http_port, rtp_first);
        std::fs::write(&config, text).expect("a config");
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(trunkline);
        command
            .arg("up")
            .arg("--config")
            .arg(&config)
            .current_dir(folder.path());
        command.stdin(std::process::Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let process = Process::start("trunkline up", &mut command);
        let api = Api::new(&format!("http://127.0.0.1:{http_port}"));
        let mut appliance = Self {
            process,
            api,
            sip_port,
            rtp_first,
            folder,
            data_dir,
            _turn: turn,
        };
        appliance.wait_until_ready();
        appliance
    }

    fn wait_until_ready(&mut self) {
        eventually("the appliance is healthy", Duration::from_secs(20), || {
            assert!(
                self.process.is_running(),
                "trunkline up ended:\n{}",
                self.log()
            );
            self.is_healthy().then_some(())
        });
    }

    /// Whether it would take calls.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.api
            .try_get("/v1/health")
            .is_some_and(|(status, _)| status == 200)
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id of `trunkline up`.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The process id of a child of it.
    ///
    /// # Panics
    /// It has none of that name.
    #[must_use]
    pub fn child(&self, program: &str) -> i32 {
        eventually(&format!("{program} runs"), Duration::from_secs(5), || {
            children(self.process.pid(), program).first().copied()
        })
    }

    /// Kills a child with SIGKILL and waits until another one runs; how long the kernel took to end the first.
    ///
    /// # Panics
    /// None does.
    pub fn kill_child(&self, program: &str) -> Duration {
        let old = self.child(program);
        let killed = Instant::now();
        crate::process::send_signal(old, Signal::SIGKILL);
        eventually(
            &format!("{program} has ended"),
            Duration::from_secs(30),
            || (!exists(old)).then_some(()),
        );
        let dying = killed.elapsed();
        eventually(
            &format!("another {program} runs"),
            Duration::from_secs(5),
            || {
                children(self.process.pid(), program)
                    .into_iter()
                    .find(|pid| *pid != old)
            },
        );
        dying
    }

    /// Sends a signal to `trunkline up` itself.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end of `trunkline up`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        self.process.wait(timeout)
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the appliance ---\n{}", self.log());
        }
        let pid = self.process.pid();
        let own: Vec<i32> = ["trunkline-control", "trunkline-dataplane"]
            .iter()
            .flat_map(|program| children(pid, program))
            .collect();
        self.process.signal(Signal::SIGKILL);
        // They go with it; if not, that is for a test to say and not for the next one to suffer.
        for child in own {
            for _ in 0..40 {
                if exists(child) {
                    std::thread::sleep(Duration::from_millis(25));
                }
            }
            if exists(child) {
                crate::process::send_signal(child, Signal::SIGKILL);
            }
        }
    }
}

pub(crate) fn config_text(
    setup: &Setup,
    data_dir: &Path,
    sip: u16,
    http: u16,
    rtp_first: u16,
) -> String {
    let Setup {
        next,
        record,
        allow,
        sip: sip_lines,
        top,
        dataplane,
        ..
    } = setup;
    let rtp_last = rtp_first + RTP_PORTS - 1;
    let data_dir = data_dir.display();
    let route = match next.as_str() {
        "" => String::new(),
        _ => format!("[[route]]\nname = \"all\"\nnext = \"{next}\"\nrecord = {record}\n"),
    };
    format!(
        "data_dir = \"{data_dir}\"\n{top}\n\
         [dataplane]\nports = \"{rtp_first}-{rtp_last}\"\n{dataplane}\n\
         [control]\nhttp = \"127.0.0.1:{http}\"\n\
         [sip]\nlisten = [\"udp:127.0.0.1:{sip}\", \"tcp:127.0.0.1:{sip}\"]\nallow = {allow}\n\
         {sip_lines}\n{route}"
    )
}

/// One of the turns; see [`AT_ONCE`].
#[derive(Debug)]
pub(crate) struct Turn;

static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    pub(crate) fn take() -> Self {
        let (taken, freed) = &TAKEN;
        let guard = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = freed
            .wait_while(guard, |taken| *taken >= AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *guard += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (taken, freed) = &TAKEN;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}
