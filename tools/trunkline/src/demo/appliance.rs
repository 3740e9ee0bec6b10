//! `trunkline up` as a child of the demo.

use super::place::Site;
use crate::client::Client;
use crate::guard;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// An appliance that cannot outlive us.
pub(super) struct Appliance {
    process: Child,
    /// Its API.
    pub(super) client: Client,
}

impl Appliance {
    /// Starts one; [`Appliance::wait_until_ready`] says when it takes calls.
    pub(super) fn start(site: &Site) -> Result<Self> {
        let own = std::env::current_exe().context("the own program cannot be found")?;
        let log = File::create(site.log())?;
        let arguments = ["up".into(), "--config".into(), Site::CONFIG.into()];
        let process = guard::command(&own, &arguments)?
            .current_dir(&site.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env_remove("NOTIFY_SOCKET")
            .spawn()
            .context("the appliance does not start")?;
        let client = Client::new(format!("http://127.0.0.1:{}", site.http_port), None);
        Ok(Self { process, client })
    }

    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("the appliance ended at its start: {status}");
            }
            if matches!(self.client.ask("GET", "/v1/health", None), Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the appliance is not ready after {} s",
                    START_PATIENCE.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it in order.
    pub(super) fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.process.id()).context("a process id")?;
        // It may have ended already; its status tells.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        );
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the appliance ended with {status}"),
                None if Instant::now() >= deadline => bail!("the appliance does not end"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
