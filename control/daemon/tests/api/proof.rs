//! What is signed, what goes to sinks, and what is found by which name.

use crate::support::Script;
use crate::{Answer, START, Server, library};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use trunkline_control::api::events::EventHub;
use trunkline_control::api::handle::ControlHandle;
use trunkline_control::api::{ApiContext, ApiServer};
use trunkline_control::metrics::Metrics;
use trunkline_hooks::{Outbox, RecordingArtifact, RecordingRef};
use trunkline_sinks::catalog::{Catalog, CatalogOutbox, CatalogThread, OutboxSinks, Storage};
use trunkline_sinks::object::{Recording, new_id};
use trunkline_sn3::proof::{Signer, canonical, check};

use std::sync::Arc;
use std::time::Duration;

#[test]
fn an_audit_is_signed_over_all_but_its_signature() {
    let signer = Signer::from_secret(&[9; 32]);
    let public_key = signer.public_key();
    let server = Server::start_signing(None, &[Script::new(1, START, 50)], Some(signer));
    let query = "from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z";
    let mut report = server.get(&format!("/v1/audit?{query}")).json();
    assert_eq!(
        (&report["expected"], &report["complete"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(report["public_key"], public_key.as_str());
    let fields = report.as_object_mut().unwrap();
    let signature = fields.remove("signature").unwrap();
    let signature = signature.as_str().unwrap();
    assert!(check(&public_key, &canonical(&report), signature).is_ok());
    report["complete"] = json!(0);
    assert!(check(&public_key, &canonical(&report), signature).is_err());
}

/// A finished recording of a call between two parties.
fn recording(number: u64, more: Value) -> (Recording, Storage) {
    let mut body = json!({
        "id": new_id(), "call_id": new_id(), "state": "complete", "verdict": "complete",
        "started_at": START, "sip_call_ids": [format!("first{number}@a"), format!("second{number}@b")],
        "participants": [
            {"role": "caller", "uri": "sip:+4930123@example.com;user=phone"},
            {"role": "callee", "uri": "tel:+15550100"},
        ],
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let storage = Storage {
        number,
        ..Storage::default()
    };
    (serde_json::from_value(body).unwrap(), storage)
}

#[test]
fn a_recording_is_found_by_every_name_it_has() {
    let server = Server::start(None, &[]);
    let session = "ab30317f1a784dc48ff824d0d3715d86";
    let named = json!({"session_id": session, "tenant": "acme", "attributes": {"class": "mifid"}});
    let mut ids = Vec::new();
    for (number, more) in [(1, named), (2, json!({"tenant": "other"}))] {
        let (recording, storage) = recording(number, more);
        ids.push(recording.id.clone());
        server.catalog.put_recording(recording, storage);
    }
    let find = |query: &str| -> Vec<Value> {
        let page = server.get(&format!("/v1/recordings?{query}")).json();
        let items = page["items"].as_array().unwrap().clone();
        items.into_iter().map(|item| item["id"].clone()).collect()
    };
    // Before it is on the disk, and after.
    for _ in 0..2 {
        for query in [
            format!("call_id={session}"),
            "call_id=first1@a".to_owned(),
            "call_id=second1%40b".to_owned(),
            "tenant=acme".to_owned(),
            "attr.class=mifid".to_owned(),
            "tenant=acme&party=%2B4930&attr.class=mifid".to_owned(),
        ] {
            assert_eq!(find(&query), [json!(ids[0])], "{query}");
        }
        for query in ["party=%2B1555", "party=%2B49301", "state=complete"] {
            assert_eq!(find(query).len(), 2, "{query}");
        }
        let parts = [&session[..8], "first", "FIRST1@a", "acm"];
        for part in parts {
            assert!(
                find(&format!("call_id={part}")).is_empty(),
                "only whole names: {part}"
            );
        }
        assert!(server.catalog.flush(Duration::from_secs(20)));
    }
}

#[test]
fn dead_letters_are_listed_delivered_again_and_dropped() {
    let server = Server::start(None, &[]);
    let path = server._folder.path().join("catalog.sqlite");
    // Another connection stands for a process whose sinks were configured.
    let (mut catalog, _) = Catalog::open(&path).unwrap();
    catalog.set_sinks(OutboxSinks {
        lifecycle: Vec::new(),
        recording: vec!["recording:crm".to_owned()],
    });
    let mut ids = Vec::new();
    for number in 1..=3 {
        let (recording, storage) = recording(number, json!({}));
        ids.push(json!(recording.id));
        catalog.put_recording(&recording, &storage).unwrap();
    }
    let make = |recording: &RecordingRef| Ok(RecordingArtifact::without_payload(recording));
    let outbox = CatalogOutbox::new(&path, Duration::ZERO, Box::new(make));
    for item in outbox.pending("recording:crm", 2).unwrap() {
        outbox.dead(item.id, "answered 500").unwrap();
    }
    let dead = server.get("/v1/deliveries?state=dead&limit=1").json();
    let item = &dead["items"][0];
    assert_eq!(
        (
            &item["sink"],
            &item["state"],
            &item["attempts"],
            &item["error"]
        ),
        (
            &json!("crm"),
            &json!("dead"),
            &json!(1),
            &json!("answered 500")
        )
    );
    assert_eq!(item["recording_id"], ids[1], "the newest first");
    let next = dead["next"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/deliveries?state=dead&limit=1&after={next}"))
        .json();
    assert_eq!(
        (&rest["items"][0]["recording_id"], &rest["next"]),
        (&ids[0], &Value::Null)
    );
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    for (state, count) in [("dead", 2), ("waiting", 1)] {
        let line = format!("trunkline_deliveries{{sink=\"crm\",state=\"{state}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    let id = &item["id"];
    let again = server.ask("POST", &format!("/v1/deliveries/{id}/retry"), "", "");
    assert_eq!(again.json()["state"], "waiting");
    server
        .ask("POST", &format!("/v1/deliveries/{id}/retry"), "", "")
        .refused(409, "wrong_state");
    let other = &rest["items"][0]["id"];
    let dropped = server.ask("DELETE", &format!("/v1/deliveries/{other}"), "", "");
    assert_eq!(dropped.json()["state"], "done");
    assert_eq!(
        server.get("/v1/deliveries?state=waiting&sink=crm").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    server.get("/v1/deliveries?sink=nobody").json();
    server.get("/v1/deliveries/999").refused(404, "not_found");
    server.get("/v1/deliveries/x").refused(404, "not_found");
    server
        .get("/v1/deliveries?state=lost")
        .refused(400, "bad_request");
}

#[test]
fn a_core_that_is_gone_is_said_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.sqlite");
    let thread = CatalogThread::start(Catalog::open(&path).unwrap().0, path).unwrap();
    let (core, requests) = ControlHandle::new();
    drop(requests);
    let context = ApiContext {
        trace: trunkline_control::trace::Trace::default(),
        core,
        events: EventHub::new(),
        library: library(thread.handle(), folder.path(), None),
        metrics: Arc::new(Metrics::default()),
        data_dir: folder.path().to_owned(),
        token: None,
    };
    let api = ApiServer::start("127.0.0.1:0".parse().unwrap(), context).unwrap();
    let mut stream = TcpStream::connect(api.address()).unwrap();
    stream
        .write_all(b"GET /v1/calls HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    Answer::read(stream).refused(503, "unavailable");
    let mut stream = TcpStream::connect(api.address()).unwrap();
    stream
        .write_all(b"GET /v1/health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        .unwrap();
    let health = Answer::read(stream);
    assert_eq!(
        (health.status, health.json()["dataplane"].as_str()),
        (503, Some("unknown"))
    );
    let taken = ApiServer::start(api.address(), {
        let (core, _requests) = ControlHandle::new();
        ApiContext {
            trace: trunkline_control::trace::Trace::default(),
            core,
            events: EventHub::new(),
            library: library(thread.handle(), folder.path(), None),
            metrics: Arc::new(Metrics::default()),
            data_dir: folder.path().to_owned(),
            token: None,
        }
    });
    let message = taken.unwrap_err().to_string();
    assert!(
        message.contains(&format!("control.http {}", api.address())),
        "{message}"
    );
}
