//! A cold thread that deletes what is kept no longer, and erases what is deleted.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use trunkline_config::Config;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{CatalogHandle, RetentionRule, RetentionRules};
use trunkline_sinks::delivery::keepers;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(60);
const MS_PER_DAY: u64 = 86_400_000;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Retention {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The rules of a configuration.
#[must_use]
pub fn rules(config: &Config) -> RetentionRules {
    let keep_ms = |days: Option<u32>| days.map(|days| u64::from(days) * MS_PER_DAY);
    let rule = |rule: &trunkline_config::Retention| RetentionRule {
        tenant: rule.tenant.clone(),
        class: rule.class.clone(),
        keep_ms: keep_ms(rule.keep_days),
        quota_bytes: rule.quota_bytes,
    };
    RetentionRules {
        rules: config.retention.iter().map(rule).collect(),
        keep_ms: keep_ms(config.recording.keep_days),
        quota_bytes: config.recording.quota_bytes,
        keepers: keepers(&config.sinks),
    }
}

impl Retention {
    /// Starts it.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        catalog: CatalogHandle,
        segments: PathBuf,
        rules: RetentionRules,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("retention".to_owned())
            .spawn(move || {
                loop {
                    round(&catalog, &segments, &rules);
                    if stopped.recv_timeout(ROUND) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _ = thread.join();
        }
    }
}

/// What could not be erased before (a disk that refused, a segment that could not be read) is tried
/// again in every round.
fn round(catalog: &CatalogHandle, segments: &std::path::Path, rules: &RetentionRules) {
    match catalog.expire(rules, Timestamp::now()) {
        Ok(expired) if expired.is_empty() => {}
        Ok(expired) => tracing::info!(recordings = expired.len(), "kept long enough: deleted"),
        Err(error) => tracing::warn!(%error, "retention"),
    }
    match catalog.discard_unkept() {
        Ok(0) => {}
        Ok(recordings) => tracing::info!(recordings, "nobody asked to keep them: discarded"),
        Err(error) => tracing::warn!(%error, "discarding"),
    }
    if segments.is_dir()
        && let Err(error) = catalog.erase_deleted(segments)
    {
        tracing::error!(%error, "deleted recordings are not erased yet");
    }
}
