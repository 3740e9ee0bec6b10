//! A program with hooks of its own in the place of control: what it is told of real calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use trunkline_tests::api::number;
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::example;
use trunkline_tests::parts::Parts;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};
use trunkline_tests::sound::is_tone;

const TIMEOUT: Duration = Duration::from_secs(60);

fn told(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("hooks.jsonl")).unwrap_or_default();
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    whole
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Waits until so many callbacks of that name were made.
fn wait_for(folder: &Path, on: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} times {on}"), TIMEOUT, || {
        let all = told(folder);
        let made = all.iter().filter(|one| one["on"] == on).count();
        (made >= count).then_some(all)
    })
}

fn times(all: &[Value]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for one in all {
        *times
            .entry(one["on"].as_str().expect("a name").to_owned())
            .or_default() += 1;
    }
    times
}

fn pcm(folder: &Path, call_id: &str, channel: &str) -> Vec<i16> {
    let safe: String = call_id
        .chars()
        .map(|one| {
            if one.is_ascii_alphanumeric() {
                one
            } else {
                '_'
            }
        })
        .collect();
    let bytes = std::fs::read(folder.join(format!("{safe}.{channel}.pcm"))).expect("PCM");
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

#[test]
fn a_call_is_told_step_by_step_with_its_sound_and_its_recording() {
    let port = free_port();
    let parts = Parts::start(&Setup::to_port(port), &example("hooks"));
    let arguments = ["--calls", "1", "--duration", "5"];
    let run = Rtpgen::start(parts.folder(), parts.sip_port, port, &arguments);
    let report = run.finish(TIMEOUT);
    assert_ok(&report);
    let all = wait_for(parts.folder(), "bye", 2);
    let times = times(&all);
    let once = ["bridge_started", "begin_recording", "finish_recording"];
    assert!(once.iter().all(|on| times[*on] == 1), "{times:?}");
    assert_eq!((times["established"], times["bye"]), (2, 2), "{times:?}");
    let at = |on: &str| all.iter().position(|one| one["on"] == on).expect("told");
    assert!(at("finish_recording") < at("bye"), "{all:#?}");
    let finish = &all[at("finish_recording")];
    let begins = finish["begins"].as_str().expect("text");
    assert!(begins.starts_with("SN3"), "{finish}");
    assert!(number(finish, "bytes") > 50_000, "{finish}");
    assert_eq!(
        (&finish["codec"], number(finish, "rate_hz")),
        (&Value::from("PCMU"), 8000)
    );
    let byes = all.iter().filter(|one| one["on"] == "bye");
    for bye in byes {
        let inbound = bye["leg"]["direction"] == "inbound";
        assert_eq!(number(bye, "bytes") > 0, inbound, "{bye}");
        assert_eq!(bye["hangup"]["initiator"], "remote", "{bye}");
    }
    let call_id = all[at("begin_recording")]["leg"]["call_id"]
        .as_str()
        .expect("a Call-ID");
    let (caller, agent) = (
        pcm(parts.folder(), call_id, "Caller"),
        pcm(parts.folder(), call_id, "Agent"),
    );
    assert_eq!(caller.len(), agent.len(), "both follow elapsed time");
    assert!(
        (4 * 8000..7 * 8000).contains(&caller.len()),
        "{}",
        caller.len()
    );
    // Each end says what it heard: the other's tone.
    let tone = |end: &str| number(&report["results"][0][end], "tone_hz") as f64;
    assert!(
        is_tone(&caller[8000..32_000], 8000, tone("callee")),
        "the caller's sound"
    );
    assert!(
        is_tone(&agent[8000..32_000], 8000, tone("caller")),
        "the callee's sound"
    );
}

#[test]
fn ends_are_told_once_though_control_is_killed_over_and_over() {
    let port = free_port();
    let mut parts = Parts::start(&Setup::to_port(port), &example("hooks"));
    let arguments = ["--calls", "3", "--duration", "7"];
    let run = Rtpgen::start(parts.folder(), parts.sip_port, port, &arguments);
    let _ = parts.api.wait_for_call("active");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(900));
        parts.kill_control();
        parts.start_control();
    }
    assert_ok(&run.finish(TIMEOUT));
    let _ = wait_for(parts.folder(), "bye", 6);
    parts.stop_control();
    parts.start_control();
    parts.stop_control();
    let all = told(parts.folder());
    let times = times(&all);
    assert_eq!(
        (times["bye"], times["finish_recording"]),
        (6, 3),
        "{times:?}"
    );
    assert_eq!(times.get("failed"), None, "{times:?}");
}
