//! Many recordings at once: all of a directory, or those that a query finds.

use crate::Outcome;
use crate::output::{interrupted, is_capture};
use crate::wav::{Arguments, Converted, convert};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use trunkline_sn3::{Capture, Keys, SegmentDirectory};

/// How deep directories are searched, and how many files of one search are taken.
const DEPTH_MAX: usize = 16;
const JOBS_MAX: usize = 1_000_000;

/// One recording to be converted.
enum Job<'d> {
    /// In the segments of a directory; its output's name begins with `prefix`.
    Recording {
        directory: &'d SegmentDirectory,
        path: PathBuf,
        number: u64,
        prefix: String,
    },
    /// A file, and what its output is called.
    File { path: PathBuf, name: String },
}

impl Job<'_> {
    fn open(&self, keys: &Keys) -> Result<(Capture, String)> {
        match self {
            Self::Recording {
                directory,
                number,
                prefix,
                ..
            } => {
                let capture = directory.open_with(*number, keys)?;
                let open = capture.facts().open.as_ref();
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
                let id = open
                    .map(|open| open.recording_id.as_str())
                    .filter(|id| !id.is_empty() && id.chars().all(plain));
                let name = id.map_or(number.to_string(), str::to_owned);
                let name = format!("{prefix}{name}");
                Ok((capture, name))
            }
            Self::File { path, name } => Ok((Capture::open_with(path, keys)?, name.clone())),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Recording { path, .. } | Self::File { path, .. } => path,
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
    let keys = Keys::load(arguments.source.key_file.as_deref())?;
    let mut found = Found::default();
    found
        .look_through(directory, "", 0)
        .with_context(|| format!("{}: cannot be listed", directory.display()))?;
    let jobs = found.jobs();
    anyhow::ensure!(
        !jobs.is_empty() || found.problems > 0,
        "{}: no captures in there",
        directory.display()
    );
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| arguments.output.display().to_string())?;
    let names = Names::of(&jobs);
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
                    let done = work(job, &names, &keys, arguments);
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
    let outcome = summarise(arguments, &jobs, &results)?;
    Ok(if found.problems > 0 {
        Outcome::Flawed
    } else {
        outcome
    })
}

fn work(job: &Job<'_>, names: &Names, keys: &Keys, arguments: &Arguments) -> Done {
    let attempt = || -> Result<Done> {
        let (capture, name) = job.open(keys)?;
        if !arguments
            .conditions
            .iter()
            .all(|condition| condition.holds(&capture))
        {
            return Ok(Done::Passed);
        }
        let name = match job {
            Job::File { .. } => name,
            Job::Recording { .. } => names.claim(name),
        };
        let file_name = format!("{name}.{}", arguments.container().extension());
        let output = arguments.output.join(file_name);
        convert(&capture, job.path(), &output, arguments, true).map(Done::Converted)
    };
    attempt().unwrap_or_else(|error| Done::Failed(format!("{error:#}")))
}

fn summarise(
    arguments: &Arguments,
    jobs: &[Job<'_>],
    results: &[(usize, Done)],
) -> Result<Outcome> {
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
        say!("{}", serde_json::to_string_pretty(&list)?);
    }
    Ok(if damaged + failed > 0 {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

/// Output names that are taken, so that no two recordings are written to one file.
struct Names(Mutex<HashSet<String>>);

impl Names {
    /// Those of files are known from the start.
    fn of(jobs: &[Job<'_>]) -> Self {
        let of_files = jobs.iter().filter_map(|job| match job {
            Job::File { name, .. } => Some(name.clone()),
            Job::Recording { .. } => None,
        });
        Self(Mutex::new(of_files.collect()))
    }

    fn claim(&self, name: String) -> String {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unused(name, &mut taken)
    }
}

/// The name itself, or with a number behind it where it is taken.
fn unused(name: String, taken: &mut HashSet<String>) -> String {
    let mut count = 1;
    let mut unused = name.clone();
    while !taken.insert(unused.clone()) {
        count += 1;
        unused = format!("{name}-{count}");
    }
    unused
}

/// The captures in a directory and those below it.
#[derive(Default)]
struct Found {
    directories: Vec<(PathBuf, String, SegmentDirectory)>,
    files: Vec<(PathBuf, String)>,
    names: HashSet<String>,
    /// Places that could not be looked at; said aloud.
    problems: u64,
}

impl Found {
    fn look_through(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let directory = SegmentDirectory::read(path)?;
        for error in directory.unreadable() {
            self.complain(error);
        }
        if !directory.is_empty() {
            self.directories
                .push((path.to_path_buf(), prefix.to_owned(), directory));
        }
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            // A link to a directory may lead back here; a link to a file is as good as the file.
            if kind.is_dir() && depth < DEPTH_MAX {
                let prefix = format!("{prefix}{name}_");
                if let Err(error) = self.look_through(&path, &prefix, depth + 1) {
                    self.complain(&format!("{}: {error:#}", path.display()));
                }
            } else if path.is_file() && is_blob(&path) && self.files.len() < JOBS_MAX {
                let stem = name.strip_suffix(".sn3").unwrap_or(&name);
                let name = unused(format!("{prefix}{stem}"), &mut self.names);
                self.files.push((path, name));
            }
        }
        Ok(())
    }

    fn complain(&mut self, problem: &dyn std::fmt::Display) {
        eprintln!("sn3: {problem}");
        self.problems += 1;
    }

    fn jobs(&self) -> Vec<Job<'_>> {
        let recordings = self
            .directories
            .iter()
            .flat_map(|(path, prefix, directory)| {
                directory.recordings().map(|number| Job::Recording {
                    directory,
                    path: path.clone(),
                    number,
                    prefix: prefix.clone(),
                })
            });
        let files = self.files.iter().map(|(path, name)| Job::File {
            path: path.clone(),
            name: name.clone(),
        });
        recordings.take(JOBS_MAX).chain(files).collect()
    }
}

/// A capture that is no segment: these are found by their recordings.
fn is_blob(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    is_capture(path) && !(read.is_ok() && magic == *b"SN3S")
}
