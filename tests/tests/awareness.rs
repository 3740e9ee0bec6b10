//! Recording awareness with SIPp: parties that understand `a=record` are told, and the receipt proves it.

use std::time::Duration;

use trunkline_tests::api::items;
use trunkline_tests::appliance::Setup;
use trunkline_tests::party::Party;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::scenario::Scenario;
use trunkline_tests::sipp::{Sipp, SippSetup};
use trunkline_tests::{Appliance, installed, skip};

const AWARE: &str = "Supported: record-aware\n";

/// A party takes our re-INVITE that tells it this.
fn told(scenario: Scenario, state: &str, party: &Party) -> Scenario {
    scenario
        .expect_body("INVITE", &format!("a=record:{state}"))
        .respond_in_dialog("200 OK", &party.media())
        .expect_request("ACK")
}

fn hung_up(scenario: Scenario) -> Scenario {
    scenario
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "")
}

#[test]
fn both_parties_are_told_of_each_change_and_the_receipt_proves_it() {
    if !installed("sipp") {
        return skip("awareness", "needs sipp");
    }
    let bob_port = free_port();
    let appliance = Appliance::start(&Setup::to_port(bob_port));
    let folder = appliance.folder();
    let (alice, bob) = (Party::start(50, 1), Party::start(50, 2));
    let answering = Scenario::callee("bob")
        .expect_invite()
        .respond_with("200 OK", AWARE, &bob.media())
        .expect_request("ACK");
    let answering = told(told(answering, "on", &bob), "paused", &bob);
    let calling = Scenario::caller("alice")
        .invite_with(AWARE, &alice.media())
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK");
    let calling = told(calling, "paused", &alice);
    let setup = |name, scenario, port| SippSetup {
        port,
        ..SippSetup::new(name, scenario)
    };
    let second = Sipp::start(
        folder,
        setup("bob", hung_up(answering), bob_port),
        None,
        "bob",
    );
    let target = Some(appliance.sip_port);
    let first = Sipp::start(folder, setup("alice", hung_up(calling), 0), target, "bob");
    let call = appliance.api.wait_for_call("active");
    let told_so_far = || {
        let recordings = items(&appliance.api.get("/v1/recordings"));
        let told = recordings[0]["receipt"]["indications"].as_array().cloned();
        told.unwrap_or_default()
    };
    let wait_for = |count: usize| {
        eventually("both acknowledge it", Duration::from_secs(10), || {
            let told = told_so_far();
            (told.len() == count).then_some(told)
        })
    };
    wait_for(2);
    assert_eq!(appliance.api.record(&call, "pause")["state"], "paused");
    let told = wait_for(4);
    let said = |one: &serde_json::Value| {
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("kind"), "a=record", "{one}");
        (text("side"), text("value"))
    };
    let mut said: Vec<(String, String)> = told.iter().map(said).collect();
    said.sort();
    let expected = ["callee on", "callee paused", "caller on", "caller paused"];
    let said: Vec<String> = said
        .iter()
        .map(|(side, value)| format!("{side} {value}"))
        .collect();
    assert_eq!(said, expected);
    assert_eq!(appliance.api.delete(&format!("/v1/calls/{call}")), 202);
    let trace = first.finish_with_trace();
    assert!(
        trace.contains("a=record:on"),
        "the answer told alice: {trace}"
    );
    second.finish();
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    let proof = recording["receipt"]["indications"].as_array();
    assert_eq!(proof.map(Vec::len), Some(4), "{recording}");
}
