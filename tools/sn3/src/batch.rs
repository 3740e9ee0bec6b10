//! Many recordings at once: all of a directory, or those that a query finds.

use crate::output::interrupted;
use crate::wav::{Arguments, Converted, convert};
use crate::{Outcome, listing};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trunkline_sn3::{Capture, segment};

/// How deep directories are searched, and how many files of one search are taken.
const DEPTH_MAX: usize = 16;
const JOBS_MAX: usize = 1_000_000;

/// One condition of a query, named as in the API.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    name: String,
    value: String,
}

/// `NAME=VALUE`.
pub(crate) fn parse_condition(text: &str) -> Result<Condition, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    let known = ["party", "call_id", "tenant", "from", "to", "verdict"];
    if !known.contains(&name) && !name.starts_with("attr.") {
        return Err(format!("choose {} or attr.NAME", known.join(", ")));
    }
    Ok(Condition {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

impl Condition {
    fn holds(&self, capture: &Capture) -> bool {
        let facts = capture.facts();
        let Some(open) = &facts.open else {
            return false;
        };
        let value = self.value.as_str();
        match self.name.as_str() {
            "party" => open.caller.starts_with(value) || open.callee.starts_with(value),
            "call_id" => {
                open.call_id == value
                    || open.session_id == value
                    || open.sip_call_ids.iter().any(|id| id == value)
            }
            "tenant" => open.tenant == value,
            // Times in UTC sort as they are written.
            "from" => open.started_at.as_str() >= value,
            "to" => open.started_at.as_str() < value,
            "verdict" => facts
                .close
                .as_ref()
                .is_some_and(|(_, c)| c.verdict == value),
            name => {
                let attribute = name.strip_prefix("attr.").unwrap_or(name);
                open.attributes.get(attribute).is_some_and(|v| v == value)
            }
        }
    }
}

enum Job {
    /// A recording in the segments of a directory.
    Recording(PathBuf, u64),
    /// A file, and what its output is called.
    File(PathBuf, String),
}

impl Job {
    fn open(&self) -> Result<(Capture, String)> {
        match self {
            Self::Recording(directory, number) => {
                let capture = Capture::open_in_directory(directory, *number, None)?;
                let id = capture
                    .facts()
                    .open
                    .as_ref()
                    .map(|open| open.recording_id.clone());
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
                let id = id.filter(|id| !id.is_empty() && id.chars().all(plain));
                Ok((capture, id.unwrap_or_else(|| number.to_string())))
            }
            Self::File(path, name) => Ok((Capture::open(path)?, name.clone())),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Recording(path, _) | Self::File(path, _) => path,
        }
    }
}

/// What became of a job.
enum Done {
    Converted(Converted),
    /// The query does not ask for it.
    Passed,
    Failed(String),
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let directory = &arguments.source.file;
    let mut jobs = Vec::new();
    find(directory, "", 0, &mut jobs)
        .with_context(|| format!("{}: cannot be listed", directory.display()))?;
    anyhow::ensure!(
        !jobs.is_empty(),
        "{}: no captures in there",
        directory.display()
    );
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| arguments.output.display().to_string())?;
    let bar = ProgressBar::with_draw_target(Some(jobs.len() as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(directory.display().to_string());
    let results = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments
        .jobs
        .map_or(cores, |jobs| usize::from(jobs.get()))
        .min(jobs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !interrupted() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    let done = work(job, arguments);
                    bar.inc(1);
                    if let Ok(mut results) = results.lock() {
                        results.push((index, done));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    anyhow::ensure!(!interrupted(), "cancelled");
    let mut results = results.into_inner().unwrap_or_default();
    results.sort_by_key(|(index, _)| *index);
    summarise(arguments, &jobs, &results)
}

fn work(job: &Job, arguments: &Arguments) -> Done {
    let attempt = || -> Result<Done> {
        let (capture, name) = job.open()?;
        if !arguments
            .conditions
            .iter()
            .all(|condition| condition.holds(&capture))
        {
            return Ok(Done::Passed);
        }
        let container = arguments.container_in_directory();
        let output = arguments
            .output
            .join(format!("{name}.{}", container.extension()));
        convert(&capture, job.path(), &output, container, arguments, true).map(Done::Converted)
    };
    attempt().unwrap_or_else(|error| Done::Failed(format!("{error:#}")))
}

fn summarise(arguments: &Arguments, jobs: &[Job], results: &[(usize, Done)]) -> Result<Outcome> {
    let (mut converted, mut damaged, mut failed, mut seconds) = (0, 0, 0, 0);
    let mut list = Vec::new();
    for (index, done) in results {
        match done {
            Done::Converted(done) => {
                converted += 1;
                damaged += u64::from(done.flawed);
                seconds += done.duration_ms / 1_000;
                list.push(done.summary.clone());
            }
            Done::Passed => {}
            Done::Failed(why) => {
                failed += 1;
                let path = jobs[*index].path().display().to_string();
                eprintln!("sn3: {path}: {why}");
                list.push(serde_json::json!({ "file": path, "error": why }));
            }
        }
    }
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    eprintln!(
        "sn3: {}: {converted} converted, {damaged} of them damaged or incomplete, {failed} failed; \
         {hours}:{minutes:02}:{rest:02} of sound",
        arguments.source.file.display(),
    );
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&list)?);
    }
    Ok(if damaged + failed > 0 {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

/// Collects the captures in a directory and those below it.
fn find(directory: &Path, prefix: &str, depth: usize, jobs: &mut Vec<Job>) -> Result<()> {
    if !segment::list(directory)?.is_empty() {
        for number in listing::recordings_in(directory)? {
            jobs.push(Job::Recording(directory.to_path_buf(), number));
        }
    }
    let mut entries: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() && depth < DEPTH_MAX {
            find(&path, &format!("{prefix}{name}_"), depth + 1, jobs)?;
        } else if kind.is_file() && is_blob(&path) && jobs.len() < JOBS_MAX {
            let stem = name.strip_suffix(".sn3").unwrap_or(&name);
            jobs.push(Job::File(path, format!("{prefix}{stem}")));
        }
    }
    Ok(())
}

/// By magic, never by name; segments are found by their recordings.
fn is_blob(path: &Path) -> bool {
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    let known = [b"SN1", b"SN2", b"SN3"]
        .iter()
        .any(|known| magic.starts_with(*known));
    read.is_ok() && known && magic != b"SN3S"
}
