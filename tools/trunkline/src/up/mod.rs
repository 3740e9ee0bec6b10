//! `trunkline up`: both processes as children, restarted when they die, stopped in order.

mod child;
mod wait;

use anyhow::{Context, Result, bail};
use child::{Child, Ended};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use trunkline_config::Config;
use wait::{Waiter, Woken};

/// How long control may take beyond the drain, and the dataplane to seal what it holds.
const CONTROL_PATIENCE: Duration = Duration::from_secs(10);
const DATAPLANE_PATIENCE: Duration = Duration::from_secs(10);
/// The same after a second signal.
const HASTE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The configuration [default: ./trunkline.toml; without that file, the defaults].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (config, path) = load(options)?;
    let run_dir = config.data_dir.join("run");
    std::fs::create_dir_all(&run_dir)
        .with_context(|| format!("data_dir: {}", run_dir.display()))?;
    let _lock = lock(&run_dir)?;
    let mut appliance = Appliance::new(&config, path.as_deref(), &run_dir)?;
    let result = appliance.run();
    appliance.kill_all();
    result
}

fn load(options: &Options) -> Result<(Config, Option<PathBuf>)> {
    let path = match &options.config {
        Some(path) => path.clone(),
        None => {
            let path = crate::default_config();
            if !path.exists() {
                say("no --config and no ./trunkline.toml: running with the defaults");
                return Ok((announced(Config::default()), None));
            }
            path
        }
    };
    let config = Config::load(&path)?;
    Ok((announced(config), Some(path)))
}

fn announced(config: Config) -> Config {
    if config.routes.is_empty() {
        say("no route is configured: every call gets 404");
    }
    config
}

/// One appliance a data directory.
fn lock(run_dir: &Path) -> Result<File> {
    let path = run_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!(
                "data_dir is in use by another trunkline ({} is locked)",
                path.display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).context("data_dir cannot be locked"),
    }
}

pub(super) fn say(message: &str) {
    eprintln!("trunkline: {message}");
}

/// Where `run` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Control has not said yet that it is ready.
    Starting,
    Running,
    /// Control drains; then the dataplane ends.
    Draining {
        until: Instant,
    },
    /// Only the dataplane is left.
    Sealing {
        until: Instant,
    },
}

struct Appliance {
    dataplane: Child,
    control: Child,
    waiter: Waiter,
    phase: Phase,
    drain: Duration,
    in_haste: bool,
    clean: bool,
    greeting: String,
}

impl Appliance {
    fn new(config: &Config, path: Option<&Path>, run_dir: &Path) -> Result<Self> {
        let waiter = Waiter::new(&run_dir.join("up.sock"))?;
        let greeting = format!(
            "ready: SIP on {}, API on http://{}",
            config
                .sip
                .listen
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            config.control.http
        );
        Ok(Self {
            dataplane: Child::new("trunkline-dataplane", path, None)?,
            control: Child::new("trunkline-control", path, Some(waiter.socket_path()))?,
            waiter,
            phase: Phase::Starting,
            drain: Duration::from_secs(u64::from(config.drain_timeout_s)),
            in_haste: false,
            clean: true,
            greeting,
        })
    }

    fn run(&mut self) -> Result<ExitCode> {
        self.dataplane.start()?;
        self.control.start()?;
        loop {
            let now = Instant::now();
            for child in [&mut self.dataplane, &mut self.control] {
                if child.restart_at().is_some_and(|at| at <= now) {
                    child.start()?;
                }
            }
            let woken = self.waiter.wait(self.deadline())?;
            match woken {
                Woken::Signal => self.on_signal(),
                Woken::Ready => self.on_ready(),
                Woken::ChildOrTime => {}
            }
            self.reap()?;
            if let Some(code) = self.advance() {
                return Ok(code);
            }
        }
    }

    /// When something is due next.
    fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Starting | Phase::Running => None,
            Phase::Draining { until } | Phase::Sealing { until } => Some(until),
        };
        [
            phase,
            self.dataplane.restart_at(),
            self.control.restart_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_ready(&mut self) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Running;
            say(&self.greeting);
            // Nobody may be listening; that is fine.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    fn on_signal(&mut self) {
        match self.phase {
            Phase::Starting | Phase::Running => {
                say("draining: no new calls; a second signal stops at once");
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                self.control.stop();
                self.phase = Phase::Draining {
                    until: Instant::now() + self.drain + CONTROL_PATIENCE,
                };
            }
            Phase::Draining { .. } | Phase::Sealing { .. } => {
                say("stopping at once");
                self.in_haste = true;
                self.control.stop();
                self.dataplane.stop();
                self.phase = Phase::Sealing {
                    until: Instant::now() + HASTE,
                };
            }
        }
    }

    /// Takes note of children that ended, and of what is to follow.
    fn reap(&mut self) -> Result<()> {
        for child in [&mut self.dataplane, &mut self.control] {
            let Some(ended) = child.reap()? else { continue };
            let stopping = matches!(self.phase, Phase::Draining { .. } | Phase::Sealing { .. });
            if child.is_stopping() {
                self.clean &= ended == Ended::Clean;
                continue;
            }
            if self.phase == Phase::Starting && ended == Ended::Refused {
                bail!("{} cannot start, see above", child.name());
            }
            // During the drain the dataplane is still needed; control would only start a new life.
            if stopping && child.name() == "trunkline-control" {
                self.clean = false;
                child.stop();
                continue;
            }
            child.schedule_restart();
        }
        Ok(())
    }

    /// Goes on with an orderly end; the exit code when it is reached.
    fn advance(&mut self) -> Option<ExitCode> {
        let now = Instant::now();
        if let Phase::Draining { until } = self.phase
            && (!self.control.is_running() || now >= until)
        {
            if self.control.is_running() {
                say("trunkline-control does not end; killing it");
                self.clean = false;
                self.control.kill();
            }
            self.dataplane.stop();
            self.phase = Phase::Sealing {
                until: now + DATAPLANE_PATIENCE,
            };
        }
        if let Phase::Sealing { until } = self.phase {
            let running = self.control.is_running() || self.dataplane.is_running();
            if running && now < until {
                return None;
            }
            if running && !self.in_haste {
                say("trunkline-dataplane does not end; killing it");
            }
            self.clean &= !running;
            return Some(if self.clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        None
    }

    /// Leaves nobody behind, whatever happened.
    fn kill_all(&mut self) {
        self.control.kill();
        self.dataplane.kill();
    }
}
