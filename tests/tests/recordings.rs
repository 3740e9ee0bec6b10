//! Recording actions and many calls at once, with every packet accounted for.

use std::time::Duration;

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::{Stereo, check_receipt, number};
use trunkline_tests::appliance::Setup;
use trunkline_tests::ports::free_port;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};
use trunkline_tests::sound::{is_tone, longest_silence};

const TIMEOUT: Duration = Duration::from_secs(40);

/// The tone of each end of the first call of a run.
const CALLER_HZ: f64 = 400.0;
const CALLEE_HZ: f64 = 410.0;

fn call(appliance: &Appliance, port: u16, arguments: &[&str]) -> Rtpgen {
    Rtpgen::start(appliance.folder(), appliance.sip_port, port, arguments)
}

/// Whether a piece of both channels, in ms, is what the parties said.
fn assert_tones(wav: &Stereo, from_ms: usize, to_ms: usize) {
    let piece = |track: &[i16]| track[from_ms * 8..to_ms * 8].to_vec();
    assert!(
        is_tone(&piece(&wav.left), 8000, CALLER_HZ),
        "left, {from_ms} to {to_ms} ms"
    );
    assert!(
        is_tone(&piece(&wav.right), 8000, CALLEE_HZ),
        "right, {from_ms} to {to_ms} ms"
    );
}

#[test]
fn a_pause_is_exact_silence_of_its_length() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let run = call(&appliance, port, &["--calls", "1", "--duration", "7"]);
    let id = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_millis(2000));
    let paused = appliance.api.record(&id, "pause");
    assert_eq!(paused["state"], "paused", "{paused}");
    assert_eq!(
        appliance.api.record(&id, "pause")["state"],
        "paused",
        "repeated"
    );
    std::thread::sleep(Duration::from_millis(2000));
    let resumed = appliance.api.record(&id, "resume");
    assert_eq!(resumed["state"], "recording", "{resumed}");
    let report = run.finish(TIMEOUT);
    assert_ok(&report);
    assert_eq!(
        report["rtp"]["lost"], 0,
        "the relay goes on while recording is paused"
    );

    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let expected = check_receipt(&recording);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    let pauses = recording["pauses"].as_array().expect("pauses");
    assert_eq!(pauses.len(), 1, "{recording}");
    let (from, to) = (number(&pauses[0], "from_ms"), number(&pauses[0], "to_ms"));
    assert!((1_900..3_500).contains(&(to - from)), "{recording}");
    // Paused packets are outside of the receipt.
    let sent = number(&report["results"][0]["caller"], "sent");
    assert!(
        expected[0] < sent - 90 && expected[0] > sent - 180,
        "{expected:?} of {sent}"
    );

    let wav = appliance.api.wav(&recording);
    for track in [&wav.left, &wav.right] {
        let (start, length) = longest_silence(track);
        let length_ms = length as u64 / 8;
        assert!(
            length_ms.abs_diff(to - from) <= 60,
            "{length_ms} ms of silence, {recording}"
        );
        assert!(
            (start as u64 / 8).abs_diff(from) <= 60,
            "from {} ms, {recording}",
            start / 8
        );
    }
    let (from, to) = (from as usize, to as usize);
    assert_tones(&wav, 300, from - 100);
    assert_tones(&wav, to + 100, to + 1100);
}

#[test]
fn stop_and_start_make_two_recordings() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let run = call(&appliance, port, &["--calls", "1", "--duration", "6"]);
    let id = appliance.api.wait_for_call("active");
    std::thread::sleep(Duration::from_millis(1500));
    let first = appliance.api.record(&id, "stop");
    std::thread::sleep(Duration::from_millis(1000));
    let second = appliance.api.record(&id, "start");
    assert_ne!(first["id"], second["id"]);
    assert_ok(&run.finish(TIMEOUT));
    let recordings = appliance.api.wait_for_recordings(2);
    assert_eq!(
        (&recordings[1]["id"], &recordings[0]["id"]),
        (&first["id"], &second["id"])
    );
    for recording in &recordings {
        check_receipt(recording);
        assert_eq!(recording["verdict"], "complete", "{recording}");
        assert_eq!(recording["call_id"], id.as_str());
    }
    assert_tones(&appliance.api.wav(&recordings[1]), 300, 1300);
    let ended = appliance.api.get(&format!("/v1/calls/{id}"));
    assert_eq!(
        ended["recordings"].as_array().map(Vec::len),
        Some(2),
        "{ended}"
    );
}

#[test]
fn recording_may_begin_in_mid_call() {
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        record: "false",
        ..Setup::to_port(port)
    });
    let run = call(&appliance, port, &["--calls", "1", "--duration", "4"]);
    let id = appliance.api.wait_for_call("active");
    let (status, body) = appliance.api.post(
        &format!("/v1/calls/{id}/recording"),
        &serde_json::json!({ "action": "pause" }),
    );
    assert_eq!(status, 409, "there is nothing to pause: {body}");
    std::thread::sleep(Duration::from_millis(1000));
    let started = appliance.api.record(&id, "start");
    assert_eq!(started["state"], "recording", "{started}");
    assert_ok(&run.finish(TIMEOUT));
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let expected = check_receipt(&recording);
    assert!(expected[0] > 50 && expected[1] > 50, "{expected:?}");
    assert_eq!(recording["id"], started["id"]);
    // Sample 0 is the answer all the same: what came before the recording is silence.
    let wav = appliance.api.wav(&recording);
    assert!(
        wav.left[..800 * 8]
            .iter()
            .chain(&wav.right[..800 * 8])
            .all(|one| *one == 0)
    );
    assert_tones(&wav, 2_000, 2_800);
}

#[test]
fn without_record_nothing_is_recorded() {
    let port = free_port();
    let appliance = Appliance::start(&Setup {
        record: "false",
        ..Setup::to_port(port)
    });
    assert_ok(&call(&appliance, port, &["--calls", "2", "--duration", "1"]).finish(TIMEOUT));
    let list = appliance.api.get("/v1/recordings");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(0), "{list}");
}

#[test]
fn of_twenty_calls_every_packet_is_accounted_for() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let arguments = [
        "--calls",
        "20",
        "--rate",
        "10",
        "--duration",
        "4",
        "--hangup",
        "alternate",
        "--rtcp",
    ];
    let report = call(&appliance, port, &arguments).finish(TIMEOUT);
    assert_ok(&report);
    assert_eq!(report["rtp"]["lost"], 0, "{}", report["rtp"]);
    assert_eq!(report["rtp"]["duplicates"], 0, "{}", report["rtp"]);
    assert!(number(&report["rtp"], "rtcp") > 0, "RTCP is relayed");
    for recording in appliance.api.wait_for_recordings(20) {
        let call_id = recording["call_id"].as_str().expect("a call");
        let call = appliance.api.get(&format!("/v1/calls/{call_id}"));
        let result = result_of(&report, &call);
        let sent = ["caller", "callee"].map(|end| number(&result[end], "sent"));
        assert_eq!(check_receipt(&recording), sent, "{recording}");
        assert_eq!(recording["verdict"], "complete", "{recording}");
        assert_eq!(call["ended_by"], result["ended_by"], "{call}");
        let wav = appliance.api.wav(&recording);
        let tone = |end: &str| number(&result[end], "tone_hz") as f64;
        // Each end's `tone_hz` is what it hears, so what the other one says.
        assert!(
            is_tone(&wav.left[4000..20_000], 8000, tone("callee")),
            "{call}"
        );
        assert!(
            is_tone(&wav.right[4000..20_000], 8000, tone("caller")),
            "{call}"
        );
    }
    assert_eq!(appliance.api.metric("trunkline_calls_active", ""), 0.0);
    assert_eq!(
        appliance
            .api
            .metric("trunkline_recordings_total", "complete"),
        20.0
    );
    assert_eq!(
        appliance
            .api
            .metric("trunkline_recordings_expected_total", ""),
        20.0
    );
}

/// rtpgen's result of a call, found by the number at the end of the caller's name.
fn result_of<'a>(report: &'a Value, call: &Value) -> &'a Value {
    let caller = call["caller"].as_str().expect("a caller");
    let number: usize = caller
        .trim_start_matches("caller")
        .parse()
        .expect("a number");
    &report["results"][number]
}
