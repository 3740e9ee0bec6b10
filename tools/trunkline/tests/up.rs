//! `trunkline up` as a supervisor, with scripts in the place of both programs.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends in order, and says so.
const GOOD: &str = "echo \"$NAME start $$\" >> events\ntrap 'echo \"$NAME term\" >> events; exit 0' TERM\nwhile :; do sleep 0.05; done\n";
/// Cannot start.
const BROKEN: &str = "echo \"$NAME start $$\" >> events\nexit 3\n";
/// Does not want to end.
const STUBBORN: &str = "trap 'echo \"$NAME term\" >> events' TERM\necho \"$NAME start $$\" >> events\nwhile :; do sleep 0.05; done\n";

struct Place {
    folder: tempfile::TempDir,
}

/// Held while programs are written and while one is started: a child that another test forks meanwhile
/// would hold the written file open, and a file open for writing cannot be run.
static PROGRAMS: Mutex<()> = Mutex::new(());

fn programs() -> MutexGuard<'static, ()> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Up {
    child: Child,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Place {
    fn new(dataplane: Option<&str>, control: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { folder };
        let own = place.path("trunkline");
        let _programs = programs();
        // A copy, since another program beside ours is what is tried here.
        std::fs::copy(assert_cmd::cargo::cargo_bin("trunkline"), &own).unwrap();
        for (name, body) in [("dataplane", dataplane), ("control", control)] {
            if let Some(body) = body {
                let path = place.path(&format!("trunkline-{name}"));
                std::fs::write(&path, format!("#!/bin/sh\nNAME={name}\n{body}")).unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            }
        }
        std::fs::write(place.path("trunkline.toml"), "drain_timeout_s = 60\n").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn up(&self) -> Up {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        let _programs = programs();
        let child = Command::new(self.path("trunkline"))
            .arg("up")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Up { child }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn events(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Process ids of all starts of a program.
    fn starts(&self, name: &str) -> Vec<i32> {
        let prefix = format!("{name} start ");
        self.events()
            .iter()
            .filter_map(|event| event.strip_prefix(&prefix)?.parse().ok())
            .collect()
    }

    fn wait_for_starts(&self, name: &str, count: usize) -> Vec<i32> {
        wait_until(&format!("{name} started {count} times"), || {
            Some(self.starts(name)).filter(|starts| starts.len() >= count)
        })
    }
}

impl Up {
    fn signal(&self, signal: nix::sys::signal::Signal) {
        send(i32::try_from(self.child.id()).unwrap(), signal);
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("up ends", || self.child.try_wait().unwrap())
    }
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

use nix::sys::signal::Signal::{SIGINT, SIGKILL, SIGTERM};

#[test]
fn children_are_restarted_and_stopped_in_order() {
    let place = Place::new(Some(GOOD), Some(GOOD));
    let mut up = place.up();
    let first = place.wait_for_starts("control", 1)[0];
    let dataplane = place.wait_for_starts("dataplane", 1)[0];
    send(first, SIGKILL);
    let again = place.wait_for_starts("control", 2);
    send(again[1], SIGKILL);
    place.wait_for_starts("control", 3);
    assert_eq!(
        place.starts("dataplane"),
        [dataplane],
        "not touched by control's death"
    );
    up.signal(SIGTERM);
    assert_eq!(up.wait().code(), Some(0), "{}", place.log());
    let events = place.events();
    let ends: Vec<&str> = events
        .iter()
        .filter(|event| event.ends_with("term"))
        .map(String::as_str)
        .collect();
    assert_eq!(ends, ["control term", "dataplane term"]);
    assert!(!place.path("trunkline-data/run/up.sock").exists());
}

#[test]
fn a_killed_up_takes_its_children_along() {
    let place = Place::new(Some(STUBBORN), Some(STUBBORN));
    let mut up = place.up();
    let pids = [
        place.wait_for_starts("control", 1)[0],
        place.wait_for_starts("dataplane", 1)[0],
    ];
    assert!(pids.into_iter().all(lives));
    up.signal(SIGKILL);
    up.wait();
    wait_until("the children are gone", || {
        (!pids.into_iter().any(lives)).then_some(())
    });
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new(Some(STUBBORN), Some(STUBBORN));
    let mut up = place.up();
    let pids = [
        place.wait_for_starts("control", 1)[0],
        place.wait_for_starts("dataplane", 1)[0],
    ];
    up.signal(SIGINT);
    wait_until("control is asked to end", || {
        place
            .events()
            .contains(&"control term".to_owned())
            .then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(lives(pids[0]) && lives(pids[1]), "the drain goes on");
    assert!(
        !place.events().contains(&"dataplane term".to_owned()),
        "the dataplane comes after control"
    );
    up.signal(SIGINT);
    assert_eq!(up.wait().code(), Some(1));
    assert!(!pids.into_iter().any(lives));
}

#[test]
fn a_program_that_cannot_start_ends_it_all_with_a_word() {
    let place = Place::new(Some(GOOD), Some(BROKEN));
    let mut up = place.up();
    assert_eq!(up.wait().code(), Some(1));
    assert!(
        place.log().contains("trunkline-control cannot start"),
        "{}",
        place.log()
    );
    assert!(!place.starts("dataplane").into_iter().any(lives));
}

#[test]
fn missing_programs_and_files_are_named() {
    let place = Place::new(None, Some(GOOD));
    assert_eq!(place.up().wait().code(), Some(1));
    assert!(
        place.log().contains("trunkline-dataplane is missing"),
        "{}",
        place.log()
    );
    let place = Place::new(Some(GOOD), Some(BROKEN));
    std::fs::write(place.path("trunkline.toml"), "data_dri = \"x\"\n").unwrap();
    assert_eq!(place.up().wait().code(), Some(1));
    assert!(
        place
            .log()
            .contains("trunkline.toml:1: data_dri: unknown key"),
        "{}",
        place.log()
    );
    std::fs::remove_file(place.path("trunkline.toml")).unwrap();
    assert_eq!(place.up().wait().code(), Some(1));
    assert!(
        place.log().contains("running with the defaults"),
        "{}",
        place.log()
    );
}

#[test]
fn a_data_directory_has_one_appliance() {
    let place = Place::new(Some(GOOD), Some(GOOD));
    let mut first = place.up();
    place.wait_for_starts("control", 1);
    let mut second = place.up();
    assert_eq!(second.wait().code(), Some(1));
    assert!(
        place.log().contains("in use by another trunkline"),
        "{}",
        place.log()
    );
    assert!(
        Path::new(&place.path("trunkline-data/run/up.sock")).exists(),
        "the first one's socket stays"
    );
    first.signal(SIGTERM);
    assert_eq!(first.wait().code(), Some(0));
}
