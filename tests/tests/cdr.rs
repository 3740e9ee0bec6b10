//! Call detail records of real calls: as documented, and one final record a leg whatever is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use trunkline_tests::Appliance;
use trunkline_tests::api::items;
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::parts::Parts;
use trunkline_tests::ports::free_port;
use trunkline_tests::process::eventually;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};

const TIMEOUT: Duration = Duration::from_secs(60);

/// All records of a data directory, in order.
fn records(data_dir: &Path) -> Vec<Value> {
    let folder = data_dir.join("cdr");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder of records")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("cdr")
        })
        .collect();
    files.sort_unstable();
    let mut records = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).expect("records");
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        records.extend(whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
    }
    records
}

/// The final records, after no leg is open any more; checks that each leg has one, and that no record
/// is missing.
fn finals(data_dir: &Path, count: usize) -> Vec<Value> {
    let all = eventually("all legs have their final record", TIMEOUT, || {
        let all = records(data_dir);
        let done = all.iter().filter(|one| one["record"] == "final").count();
        (done >= count).then_some(all)
    });
    for (index, record) in all.iter().enumerate() {
        assert_eq!(record["sequence"], index + 1, "no gap: {record}");
    }
    let mut legs = BTreeMap::<String, usize>::new();
    for record in &all {
        let leg = legs.entry(record["id"].as_str().expect("an id").to_owned());
        *leg.or_default() += usize::from(record["record"] == "final");
    }
    assert!(legs.values().all(|finals| *finals == 1), "{legs:?}");
    assert_eq!(legs.len(), count, "{legs:?}");
    all.into_iter()
        .filter(|one| one["record"] == "final")
        .collect()
}

/// Name and type of every field that the documentation tells of.
fn documented() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cdr.md");
    let text = std::fs::read_to_string(path).expect("docs/cdr.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut fields = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for name in cells[0].split(',') {
            let name = name.trim().trim_matches('`').to_owned();
            fields.insert(name, cells[1].to_owned());
        }
    }
    fields
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    kind.split(" or ").any(|kind| match kind {
        "null" => value.is_null(),
        "text" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        "time" => value.as_str().is_some_and(|text| {
            text.len() == 24 && text.ends_with('Z') && &text[10..11] == "T" && &text[19..20] == "."
        }),
        other => panic!("docs/cdr.md: unknown type {other:?}"),
    })
}

#[test]
fn records_of_real_calls_are_as_documented_and_in_the_catalog() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let arguments = ["--calls", "3", "--duration", "2"];
    let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
    assert_ok(&run.finish(TIMEOUT));
    let finals = finals(appliance.data_dir(), 6);
    let fields = documented();
    assert!(fields.len() > 40, "{fields:?}");
    for record in records(appliance.data_dir()) {
        let object = record.as_object().expect("an object");
        let names: Vec<&String> = object.keys().collect();
        assert_eq!(names, fields.keys().collect::<Vec<_>>(), "{record}");
        for (name, value) in object {
            let kind = &fields[name];
            assert!(is_of_type(value, kind), "{name} is no {kind}: {value}");
        }
    }
    for record in &finals {
        assert_eq!(record["sip_code"], 200, "{record}");
        assert_eq!(record["codec"], "PCMU", "{record}");
        let ms = record["duration_ms"].as_u64().expect("a duration");
        assert!((1900..10_000).contains(&ms), "{record}");
        assert_eq!(record["recordings"][0]["verdict"], "complete", "{record}");
        assert!(record["mos"].as_f64().expect("heard") > 4.0, "{record}");
        let call = appliance.api.get(&format!(
            "/v1/calls/{}",
            record["call_id"].as_str().expect("a call")
        ));
        assert_eq!(record["ended_by"], call["ended_by"], "{record}");
        assert_eq!(record["ended_at"], call["ended_at"], "{record}");
        let leg = usize::from(record["direction"] == "outbound");
        assert_eq!(record["id"], call["legs"][leg]["id"], "{record}");
        assert_eq!(
            record["sip_call_id"], call["legs"][leg]["sip_call_id"],
            "{record}"
        );
    }
    let listed = items(&appliance.api.get("/v1/cdrs?limit=1000"));
    assert_eq!(listed.len(), 6);
    let id = finals[0]["sip_call_id"].as_str().expect("a Call-ID");
    let found = items(&appliance.api.get(&format!("/v1/cdrs?call_id={id}")));
    assert!(found.contains(&finals[0]), "{found:?}");
}

#[test]
fn control_killed_in_mid_call_leaves_one_final_record_a_leg() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let arguments = ["--calls", "3", "--duration", "6"];
    let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
    let _ = appliance.api.wait_for_call("active");
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1200));
        appliance.kill_child("trunkline-control");
        eventually("control is back", TIMEOUT, || {
            appliance.is_healthy().then_some(())
        });
    }
    assert_ok(&run.finish(TIMEOUT));
    for record in finals(appliance.data_dir(), 6) {
        assert_ne!(
            record["ended_by"], "unknown",
            "they ended before us: {record}"
        );
        assert_eq!(record["recordings"][0]["verdict"], "complete", "{record}");
    }
}

#[test]
fn both_killed_in_mid_call_leave_one_final_record_a_leg() {
    let port = free_port();
    let mut parts = Parts::start(&Setup::to_port(port), &binary("trunkline-control"));
    let arguments = ["--calls", "2", "--duration", "30"];
    let run = Rtpgen::start(parts.folder(), parts.sip_port, port, &arguments);
    let _ = parts.api.wait_for_call("active");
    std::thread::sleep(Duration::from_millis(1500));
    parts.kill_control();
    parts.kill_dataplane();
    drop(run);
    parts.start_dataplane();
    parts.start_control();
    let open = records(&parts.data_dir());
    let legs: std::collections::BTreeSet<&str> =
        open.iter().filter_map(|one| one["id"].as_str()).collect();
    for record in finals(&parts.data_dir(), legs.len()) {
        assert_eq!(record["ended_by"], "unknown", "{record}");
    }
    // Nothing is told again by the next one.
    parts.kill_control();
    parts.start_control();
    assert_eq!(finals(&parts.data_dir(), legs.len()).len(), legs.len());
    assert_eq!(items(&parts.api.get("/v1/cdrs")).len(), legs.len());
}

#[test]
fn a_call_that_ended_while_control_was_dead_has_its_final_records() {
    let port = free_port();
    let mut parts = Parts::start(&Setup::to_port(port), &binary("trunkline-control"));
    let run = Rtpgen::start(
        parts.folder(),
        parts.sip_port,
        port,
        &["--calls", "1", "--duration", "60"],
    );
    let id = parts.api.wait_for_call("active");
    std::thread::sleep(Duration::from_millis(1500));
    parts.kill_control();
    drop(run);
    // A session that nobody claims ends when its media was silent for 60 s.
    std::thread::sleep(Duration::from_secs(66));
    parts.start_control();
    for record in finals(&parts.data_dir(), 2) {
        assert_eq!(record["ended_by"], "unknown", "{record}");
        assert_eq!(record["call_id"], id.as_str(), "{record}");
        let ms = record["duration_ms"].as_u64().expect("a duration");
        assert!(
            (1000..30_000).contains(&ms),
            "as long as it was heard: {record}"
        );
    }
    std::fs::remove_file(parts.data_dir().join("catalog.sqlite")).expect("a catalog");
    parts.kill_control();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(parts.data_dir().join(format!("catalog.sqlite{suffix}")));
    }
    parts.start_control();
    assert_eq!(
        items(&parts.api.get("/v1/cdrs")).len(),
        2,
        "from the records"
    );
    assert_eq!(finals(&parts.data_dir(), 2).len(), 2);
}
