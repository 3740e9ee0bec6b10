//! The control process as a part of another program, with that program's hooks.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use trunkline_config::Config;
//! use trunkline_control::Appliance;
//! use trunkline_hooks::{CallMeta, LifecycleSink};
//!
//! struct Bell;
//!
//! impl LifecycleSink for Bell {
//!     fn on_ringing(&self, meta: &CallMeta) {
//!         println!("{} rings", meta.remote_addr);
//!     }
//! }
//!
//! let config = Config::load("trunkline.toml".as_ref())?;
//! let appliance = Appliance::new(config).lifecycle_sink("bell", Arc::new(Bell))?;
//! appliance.run()?;
//! # Ok(()) }
//! ```

use std::sync::Arc;

use anyhow::{Context, Result};
use trunkline_config::Config;
use trunkline_hooks::{LifecycleSink, Limits, RecordingSink, Registry};

use crate::callbacks::Hooks;

/// The control process, not started yet.
#[derive(Debug, Clone)]
pub struct Appliance {
    config: Config,
    hooks: Hooks,
}

/// A sink cannot be registered under that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkError(String);

impl std::fmt::Display for SinkError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for SinkError {}

impl Appliance {
    /// With a configuration, and without hooks.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            hooks: Hooks {
                registry: Registry::empty(),
                limits: Limits::default(),
            },
        }
    }

    /// Adds a sink that learns how calls go. Ends that it has not been told of are kept under `name`
    /// over restarts, for as long as a sink of that name comes back.
    ///
    /// # Errors
    /// The name is empty or taken, or there are too many sinks.
    pub fn lifecycle_sink(
        mut self,
        name: &str,
        sink: Arc<dyn LifecycleSink>,
    ) -> Result<Self, SinkError> {
        let added = self.hooks.registry.add_lifecycle(name, sink);
        added.map_err(SinkError).map(|()| self)
    }

    /// Adds a sink that takes recordings; `name` as for [`Self::lifecycle_sink`].
    ///
    /// # Errors
    /// The name is empty or taken, or there are too many sinks.
    pub fn recording_sink(
        mut self,
        name: &str,
        sink: Arc<dyn RecordingSink>,
    ) -> Result<Self, SinkError> {
        let added = self.hooks.registry.add_recording(name, sink);
        added.map_err(SinkError).map(|()| self)
    }

    /// What sinks may have waiting, and how long they are waited for.
    #[must_use]
    pub fn hook_limits(mut self, limits: Limits) -> Self {
        self.hooks.limits = limits;
        self
    }

    /// Runs on this thread until SIGTERM or SIGINT have drained it. The dataplane is a process of its
    /// own (`trunkline-dataplane` with the same configuration).
    ///
    /// # Errors
    /// What keeps it from starting: a busy port, an unusable data directory.
    pub fn run(self) -> Result<()> {
        // A parent that waits for signals may have left them blocked; ours must reach us.
        nix::sys::signal::SigSet::empty()
            .thread_set_mask()
            .context("signals stay blocked")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(crate::run::run(self.config, self.hooks));
        // A name that is being looked up must not hold up the exit.
        runtime.shutdown_background();
        result
    }
}
