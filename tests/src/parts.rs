//! The two processes of an appliance, each started and killed by itself: nobody brings a dead one back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::api::Api;
use crate::appliance::{Setup, Turn, config_text};
use crate::binaries::binary;
use crate::ports::{free_port, free_rtp_range};
use crate::process::{Process, eventually};

/// Control and dataplane. Dropping it ends both.
#[derive(Debug)]
pub struct Parts {
    /// The API of whichever control runs.
    pub api: Api,
    /// Its SIP port.
    pub sip_port: u16,
    control: Option<Process>,
    dataplane: Option<Process>,
    program: PathBuf,
    folder: TempDir,
    _turn: Turn,
}

impl Parts {
    /// Starts both; `control` is the program that stands for trunkline-control.
    ///
    /// # Panics
    /// They do not come up.
    #[must_use]
    pub fn start(setup: &Setup, control: &Path) -> Self {
        let turn = Turn::take();
        let folder = tempfile::Builder::new()
            .prefix("trunkline-test")
            .tempdir()
            .expect("a folder");
        let (sip_port, http_port) = (free_port(), free_port());
        let data_dir = folder.path().join("data");
        let text = config_text(setup, &data_dir, sip_port, http_port, free_rtp_range());
        std::fs::write(folder.path().join("trunkline.toml"), text).expect("a config");
        let mut parts = Self {
            api: Api::new(&format!("http://127.0.0.1:{http_port}")),
            sip_port,
            control: None,
            dataplane: None,
            program: control.to_owned(),
            folder,
            _turn: turn,
        };
        parts.start_dataplane();
        parts.start_control();
        parts
    }

    fn spawn(&self, name: &str, program: &Path) -> Process {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(self.folder.path().join("trunkline.toml"));
        command
            .current_dir(self.folder.path())
            .env("HOOKS_DIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        Process::start(name, &mut command)
    }

    /// Starts control and waits until it takes calls.
    ///
    /// # Panics
    /// It does not.
    pub fn start_control(&mut self) {
        self.control = Some(self.spawn("control", &self.program));
        eventually("control takes calls", Duration::from_secs(20), || {
            let health = self.api.try_get("/v1/health");
            health
                .is_some_and(|(status, _)| status == 200)
                .then_some(())
        });
    }

    /// Starts the dataplane.
    pub fn start_dataplane(&mut self) {
        self.dataplane = Some(self.spawn("dataplane", &binary("trunkline-dataplane")));
    }

    /// Kills control with SIGKILL.
    pub fn kill_control(&mut self) {
        kill(self.control.take());
    }

    /// Ends control in good order.
    pub fn stop_control(&mut self) {
        if let Some(mut control) = self.control.take() {
            control.signal(Signal::SIGTERM);
            control.wait(Duration::from_secs(30));
        }
    }

    /// Kills the dataplane with SIGKILL.
    pub fn kill_dataplane(&mut self) {
        kill(self.dataplane.take());
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

fn kill(process: Option<Process>) {
    if let Some(mut process) = process {
        process.signal(Signal::SIGKILL);
        process.wait(Duration::from_secs(10));
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log"));
            eprintln!("--- log of the parts ---\n{}", log.unwrap_or_default());
        }
    }
}
