//! Recordings of real calls on their way to sinks, while control is killed; and what is left of them when
//! they are deleted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::receiver::Receiver;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};

const TIMEOUT: Duration = Duration::from_secs(60);

fn names(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
}

/// Output of a command that must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn start(webhook: u16, callee: u16) -> Appliance {
    let top = format!(
        "[[sink]]\nkind = \"directory\"\npath = \"out\"\ntemplate = \"{{recording}}\"\n\
         [[sink]]\nname = \"crm\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{webhook}/\"\n"
    );
    Appliance::start(&Setup {
        // Tests are few, and so are the bytes.
        top: Box::leak(top.into_boxed_str()),
        ..Setup::to_port(callee)
    })
}

#[test]
fn recordings_reach_their_sinks_over_a_kill_and_leave_no_copy_when_deleted() {
    let (port, webhook) = (free_port(), free_port());
    let appliance = start(webhook, port);
    let arguments = ["--calls", "2", "--duration", "2"];
    let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
    assert_ok(&run.finish(TIMEOUT));
    let recordings = appliance.api.wait_for_recordings(2);
    let out = appliance.folder().join("out");
    eventually("the files", TIMEOUT, || {
        (names(&out).len() == 6).then_some(())
    });
    // Nobody takes the webhook yet: it waits, and goes on waiting in the next process.
    let waiting = || appliance.api.get("/v1/deliveries?state=waiting&sink=crm");
    eventually("both webhooks fail", TIMEOUT, || {
        let items = waiting()["items"].as_array().cloned()?;
        let tried = |one: &Value| one["attempts"].as_u64() > Some(0) && one["error"].is_string();
        (items.len() == 2 && items.iter().all(tried)).then_some(())
    });
    appliance.kill_child("trunkline-control");
    let receiver = Receiver::start(webhook);
    let got = eventually("both webhooks", TIMEOUT, || {
        let got = receiver.got();
        (got.len() == 2).then_some(got)
    });
    eventually("control is back", TIMEOUT, || {
        appliance.is_healthy().then_some(())
    });
    let told = |id: &Value| got.iter().find(|one| one["recording"]["id"] == *id);
    let mut listing = Command::new(binary("trunkline"));
    listing.args(["deliveries", "--sink", "crm", "--config"]);
    let listed = output(listing.arg(appliance.folder().join("trunkline.toml")));
    assert_eq!(listed.matches(" done ").count(), 2, "{listed}");

    for recording in &recordings {
        let told = told(&recording["id"]).expect("each is told once");
        let id = recording["id"].as_str().expect("an id");
        // The head of the chain is the same wherever it stands.
        let head = &told["recording"]["receipt"]["chain"]["head"];
        assert_eq!(head.as_str().map(str::len), Some(64), "{told}");
        let receipt = appliance.api.get(&format!("/v1/recordings/{id}/receipt"));
        assert_eq!(receipt["chain"]["head"], *head);
        let call_id = recording["call_id"].as_str().expect("a call");
        let cdrs = appliance.api.get(&format!("/v1/cdrs?call_id={call_id}"));
        let cdrs = cdrs["items"].as_array().expect("records");
        assert_eq!(cdrs.len(), 2, "{cdrs:?}");
        for cdr in cdrs {
            assert_eq!(cdr["recordings"][0]["chain"]["head"], *head, "{cdr}");
        }
        assert_eq!(told["cdrs"].as_array().map(Vec::len), Some(2), "{told}");
        assert_eq!(told["copies"][0]["sink"], "directory", "{told}");

        // The archive holds the records, and proves itself.
        let (status, archive) = appliance
            .api
            .try_get(&format!("/v1/recordings/{id}/evidence"))
            .expect("an answer");
        assert_eq!(status, 200);
        let path = appliance.folder().join("evidence.tar");
        std::fs::write(&path, archive).expect("written");
        let mut verify = Command::new(binary("sn3"));
        let checked = output(verify.arg("verify").arg(&path));
        assert!(
            checked.contains(head.as_str().expect("a head")),
            "{checked}"
        );
        let mut tar = Command::new("tar");
        let records = output(tar.arg("-xOf").arg(&path).arg("cdr.json"));
        let records: Value = serde_json::from_str(&records).expect("JSON");
        assert_eq!(records[0]["direction"], "inbound", "{records}");
        assert_eq!(records.as_array().map(Vec::len), Some(2));
    }

    let gone = recordings[0]["id"].as_str().expect("an id");
    assert_eq!(appliance.api.delete(&format!("/v1/recordings/{gone}")), 200);
    let left = names(&out);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left.iter()
            .all(|path| !path.to_string_lossy().contains(gone))
    );
}
