//! A program under test: started in its namespace on its core, measured, ended.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program may take to end after SIGTERM.
const END: Duration = Duration::from_secs(3);

/// A running program; dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` (see [`crate::place::Place::command`]); what it says goes to `log`, beside which
    /// it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &[OsString], log: &Path) -> Result<Self> {
        let (program, arguments) = command.split_first().context("an empty command")?;
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir(log.parent().unwrap_or(Path::new(".")))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails, with the end of its log, when it is no longer there.
    ///
    /// # Errors
    /// It ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Whether it ended, and how.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks `ready` until it says yes.
    ///
    /// # Errors
    /// The program ends, or nothing comes of it in 20 s.
    pub fn wait_until<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() > deadline {
                bail!("{} is not ready after 20 s:\n{}", self.name, self.log_end());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Scheduler run time of all its threads.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        threads_ns(self.id())
    }

    /// The same, its children's too.
    #[must_use]
    pub fn family_cpu_ns(&self) -> u64 {
        let path = format!("/proc/{0}/task/{0}/children", self.id());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let ids = children.split_whitespace().filter_map(|id| id.parse().ok());
        self.cpu_ns() + ids.map(threads_ns).sum::<u64>()
    }

    /// Resident memory in bytes, shared pages included.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        kibibytes(&format!("/proc/{}/status", self.id()), "VmRSS:") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn threads_ns(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| run_time_ns(&task.path())).sum()
}

/// Run time of one thread (`/proc/PID` or `/proc/PID/task/TID`), by the scheduler's own clock.
#[must_use]
pub fn run_time_ns(directory: &Path) -> u64 {
    std::fs::read_to_string(directory.join("schedstat"))
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Memory that the kernel holds in its own objects, bytes.
#[must_use]
pub fn slab_bytes() -> u64 {
    kibibytes("/proc/meminfo", "Slab:") * 1024
}

fn kibibytes(path: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Threads whose name begins so, by process id.
#[must_use]
pub fn named(prefix: &str) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            name.starts_with(prefix).then_some(id)
        })
        .collect()
}
