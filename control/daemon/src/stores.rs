//! What is kept on disk beside the captures: the catalog and the call detail records, opened together
//! and brought into line with each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing::{info, warn};
use trunkline_config::Config;
use trunkline_sinks::catalog::{
    Catalog, CatalogHandle, CatalogThread, OutboxSinks, adopt, rebuild, settle,
};
use trunkline_sinks::cdr::{Cdr, CdrHandle, CdrSettings, CdrThread, Journal};
use trunkline_sinks::delivery::keepers;
use trunkline_sinks::object::Recording;

use trunkline_sn3::Keys;

use crate::ledger::end_orphan;

/// How long what was written before may take to be committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Records entered into the catalog at once.
const BATCH: usize = 1000;

/// The running stores. The records' thread ends first: it hands its last ones to the catalog.
#[derive(Debug)]
pub struct Stores {
    /// Call detail records.
    pub cdrs: CdrThread,
    /// Calls and recordings.
    pub catalog: CatalogThread,
}

/// Opens both; gives also the legs that an earlier process left open.
///
/// # Errors
/// The data directory cannot be used.
pub fn open(config: &Config, keys: &Keys, sinks: OutboxSinks) -> Result<(Stores, Vec<Cdr>)> {
    let path = config.catalog_file();
    let (mut catalog, new) = Catalog::open(&path)?;
    let segments = config.segments_dir();
    if new && segments.is_dir() {
        // Whoever keeps recordings is asked what it has; others would be told again what they know.
        catalog.set_sinks(OutboxSinks {
            recording: keepers(&config.sinks),
            ..OutboxSinks::default()
        });
        rebuild_catalog(&mut catalog, &segments, keys)?;
        catalog.set_sinks(OutboxSinks::default());
    }
    let settings = CdrSettings {
        node: config.cdr.node.clone().unwrap_or_else(host_name),
        rotate_bytes: config.cdr.rotate_bytes,
        rotate_after: Duration::from_secs(u64::from(config.cdr.rotate_hours) * 3600),
    };
    let (journal, left) = Journal::open(&config.cdr_dir(), settings)?;
    if new {
        // What it knew is told to nobody again: whom it was told to is not known any more.
        enter_records(&mut catalog, &journal)?;
        catalog.set_sinks(sinks);
    } else {
        catalog.set_sinks(sinks);
        enter_records(&mut catalog, &journal)?;
    }
    let catalog = CatalogThread::start(catalog, path)?;
    let cdrs = CdrThread::start(journal, catalog.handle()).context("call detail records")?;
    Ok((Stores { cdrs, catalog }, left))
}

fn rebuild_catalog(catalog: &mut Catalog, segments: &Path, keys: &Keys) -> Result<()> {
    let report = rebuild(catalog, segments, keys)?;
    info!(
        segments = report.segments,
        recordings = report.recordings,
        calls = report.calls,
        "catalog rebuilt from segments"
    );
    for damage in report.damages {
        warn!(damage, "while rebuilding the catalog");
    }
    Ok(())
}

/// Final records that the catalog has not got.
fn enter_records(catalog: &mut Catalog, journal: &Journal) -> Result<()> {
    let mut missing = Vec::new();
    journal.finals_after(catalog.cdr_sequence()?, |record| missing.push(record))?;
    for records in missing.chunks(BATCH) {
        catalog.put_cdrs(records)?;
    }
    if !missing.is_empty() {
        info!(
            records = missing.len(),
            "call detail records entered into the catalog"
        );
    }
    Ok(())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "trunkline".to_owned(),
        name => name.to_owned(),
    }
}

/// What an earlier process left behind and is over, once it is known what goes on.
#[derive(Debug)]
pub struct Leftovers {
    /// Recordings of our own have this number or a higher one.
    pub numbers: u64,
    /// Recordings that go on.
    pub recordings: BTreeSet<u64>,
    /// Calls that go on.
    pub calls: BTreeSet<String>,
    /// Legs that nobody goes on with.
    pub orphans: Vec<Cdr>,
    /// Sinks that are told of ends.
    pub sinks: OutboxSinks,
    /// Keys of what is encrypted.
    pub keys: Arc<Keys>,
}

impl Leftovers {
    /// Gives all that is over its end. Reads segments: not for the signalling's thread.
    pub fn settle(self, config: &Config, catalog: &CatalogHandle, cdrs: &CdrHandle) {
        if !catalog.flush(PATIENCE) {
            warn!(
                "the catalog is slow: its unfinished entries are settled without its last writes"
            );
        }
        if let Err(error) = self.settle_catalog(config, catalog) {
            warn!(%error, "the catalog's unfinished entries cannot be settled");
        }
        for mut leg in self.orphans {
            let call = catalog.call(&leg.call_id).ok().flatten();
            let ids = call.as_ref().map(|call| call.recordings.clone());
            let recordings: Vec<_> = ids
                .unwrap_or_default()
                .iter()
                .filter_map(|id| Some(catalog.recording(id).ok()??.recording))
                .collect();
            let last_known = leg.written_at;
            end_orphan(&mut leg, call.as_ref(), &recordings, last_known);
            cdrs.write(leg);
        }
    }

    fn settle_catalog(&self, config: &Config, handle: &CatalogHandle) -> Result<()> {
        let (mut catalog, _) = Catalog::open(&config.catalog_file())?;
        catalog.set_sinks(self.sinks.clone());
        let segments = config.segments_dir();
        let ended = settle(
            &mut catalog,
            &segments,
            &self.recordings,
            &self.calls,
            &self.keys,
        )?;
        if !ended.is_empty() {
            info!(
                recordings = ended.len(),
                "recordings of an earlier run were closed"
            );
        }
        let is_over = |number: u64| number < self.numbers && !self.recordings.contains(&number);
        let mark = |recording: &mut Recording| handle.mark(recording);
        let adopted = adopt(
            &mut catalog,
            &segments,
            &is_over,
            &self.calls,
            &mark,
            &self.keys,
        )?;
        if !adopted.is_empty() {
            warn!(
                recordings = adopted.len(),
                "segments held recordings that the catalog had not got: entered"
            );
        }
        Ok(())
    }
}
