//! One child of `trunkline up`.

use super::say;
use crate::guard;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A life at least this long makes earlier deaths forgotten.
const STABLE: Duration = Duration::from_secs(10);
/// Waits before the second restart in a row, and the longest.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
const BACK_OFF_LAST: Duration = Duration::from_secs(5);

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Exit code 0.
    Clean,
    /// Another exit code: it said why.
    Refused,
    /// By a signal.
    Killed,
}

/// A program that is kept running.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    notify_socket: Option<PathBuf>,
    process: Option<std::process::Child>,
    started_at: Instant,
    restart_at: Option<Instant>,
    /// Deaths in a row, none after a stable life.
    deaths: u32,
    stopping: bool,
}

impl Child {
    /// A child whose program lies beside our own. It takes the configuration's path, if there is one.
    pub(super) fn new(
        name: &'static str,
        config: Option<&Path>,
        notify_socket: Option<&Path>,
    ) -> Result<Self> {
        let own = std::env::current_exe().context("the own program cannot be found")?;
        let program = own.with_file_name(name);
        if !program.exists() {
            bail!(
                "{} is missing: it belongs beside {}",
                program.display(),
                own.display()
            );
        }
        let arguments = match config {
            Some(path) => vec!["--config".into(), path.into()],
            None => Vec::new(),
        };
        Ok(Self {
            name,
            program,
            arguments,
            notify_socket: notify_socket.map(Path::to_owned),
            process: None,
            started_at: Instant::now(),
            restart_at: None,
            deaths: 0,
            stopping: false,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// When it is to be started again.
    pub(super) fn restart_at(&self) -> Option<Instant> {
        self.restart_at
    }

    /// Starts it.
    pub(super) fn start(&mut self) -> Result<()> {
        let mut command = guard::command(&self.program, &self.arguments)?;
        command.stdin(Stdio::null());
        // What our own starter wants to be told is our business.
        command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        if let Some(socket) = &self.notify_socket {
            command.env("NOTIFY_SOCKET", socket);
        }
        let process = command
            .spawn()
            .with_context(|| self.program.display().to_string())?;
        say(&format!("{} started (pid {})", self.name, process.id()));
        self.process = Some(process);
        self.started_at = Instant::now();
        self.restart_at = None;
        Ok(())
    }

    /// Notices its end.
    pub(super) fn reap(&mut self) -> Result<Option<Ended>> {
        let Some(process) = &mut self.process else {
            return Ok(None);
        };
        let Some(status) = process.try_wait().context("waiting for a child")? else {
            return Ok(None);
        };
        self.process = None;
        let ended = judge(status);
        if !(self.stopping && ended == Ended::Clean) {
            say(&format!("{} ended: {status}", self.name));
        }
        Ok(Some(ended))
    }

    /// The first death is answered at once, each one soon after it later than the one before.
    pub(super) fn schedule_restart(&mut self) {
        if self.started_at.elapsed() >= STABLE {
            self.deaths = 0;
        }
        let wait = back_off(self.deaths);
        self.deaths = self.deaths.saturating_add(1);
        self.restart_at = Some(Instant::now() + wait);
    }

    /// Asks it to end, and no longer restarts it.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.restart_at = None;
        self.signal(Signal::SIGTERM);
    }

    /// Ends it for sure.
    pub(super) fn kill(&mut self) {
        self.stopping = true;
        self.restart_at = None;
        self.signal(Signal::SIGKILL);
        if let Some(mut process) = self.process.take() {
            // Fails only when somebody else has waited for it.
            let _ = process.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .process
            .as_ref()
            .and_then(|process| i32::try_from(process.id()).ok());
        if let Some(pid) = pid {
            // Not waited for yet, so the id is still its own; it may have ended all the same.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn judge(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Clean,
        (Some(_), _) => Ended::Refused,
        (None, _) => Ended::Killed,
    }
}

fn back_off(deaths: u32) -> Duration {
    match deaths {
        0 => Duration::ZERO,
        deaths => BACK_OFF_FIRST
            .saturating_mul(1 << (deaths - 1).min(10))
            .min(BACK_OFF_LAST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer() {
        let waits: Vec<u128> = (0..8).map(|deaths| back_off(deaths).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_LAST);
    }
}
