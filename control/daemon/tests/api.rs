//! The HTTP API over real sockets, with a core that the tests script.

#[path = "api/proof.rs"]
mod proof;
#[path = "../../sinks/tests/support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Script, write_segment};
use trunkline_control::api::events::{EventHub, EventKind, Subject};
use trunkline_control::api::handle::{
    ActionError, ControlHandle, Health, RecordingAction, Request,
};
use trunkline_control::api::{ApiContext, ApiServer};
use trunkline_control::metrics::Metrics;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{Catalog, CatalogHandle, CatalogThread, rebuild};
use trunkline_sinks::library::{Library, scratch_of};
use trunkline_sinks::object::{Call, CallState, Recording, RecordingState, new_id};
use trunkline_sn3::Keys;
use trunkline_sn3::proof::Signer;

const START: Timestamp = Timestamp(1_795_253_400_000);

/// What the scripted core knows.
#[derive(Debug, Default)]
struct Core {
    calls: Vec<Call>,
    recordings: Vec<Recording>,
    health: Health,
    hung_up: Vec<String>,
}

struct Server {
    address: SocketAddr,
    core: Arc<Mutex<Core>>,
    events: EventHub,
    catalog: CatalogHandle,
    // Dropped in this order.
    _api: ApiServer,
    _catalog_thread: CatalogThread,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(token: Option<&str>, scripts: &[Script]) -> Self {
        Self::start_signing(token, scripts, None)
    }

    fn start_signing(token: Option<&str>, scripts: &[Script], signer: Option<Signer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_segment(&folder.path().join("segments"), scripts);
        let path = folder.path().join("catalog.sqlite");
        let mut catalog = Catalog::open(&path).unwrap().0;
        rebuild(&mut catalog, &folder.path().join("segments"), &Keys::none()).unwrap();
        let catalog_thread = CatalogThread::start(catalog, path).unwrap();
        let (handle, requests) = ControlHandle::new();
        let health = Health {
            dataplane_up: true,
            ..Health::default()
        };
        let core = Arc::new(Mutex::new(Core {
            health,
            ..Core::default()
        }));
        let answering = Arc::clone(&core);
        std::thread::spawn(move || answer(requests, &answering));
        let events = EventHub::new();
        let context = ApiContext {
            trace: trunkline_control::trace::Trace::default(),
            core: handle,
            events: events.clone(),
            library: library(catalog_thread.handle(), folder.path(), signer),
            metrics: Arc::new(Metrics::default()),
            data_dir: folder.path().to_owned(),
            token: token.map(str::to_owned),
        };
        let api = ApiServer::start("127.0.0.1:0".parse().unwrap(), context).unwrap();
        Self {
            address: api.address(),
            core,
            events,
            catalog: catalog_thread.handle(),
            _api: api,
            _catalog_thread: catalog_thread,
            _folder: folder,
        }
    }

    fn ask(&self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        Answer::read(stream)
    }

    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, "", "")
    }
}

fn answer(mut requests: tokio::sync::mpsc::Receiver<Request>, core: &Mutex<Core>) {
    while let Some(request) = requests.blocking_recv() {
        let mut core = core.lock().unwrap();
        let find = |core: &Core, id: &str| core.calls.iter().find(|call| call.id == *id).cloned();
        match request {
            Request::Calls { reply } => drop(reply.send(core.calls.clone())),
            Request::Call { id, reply } => drop(reply.send(find(&core, &id))),
            Request::Recordings { reply } => drop(reply.send(core.recordings.clone())),
            Request::Health { reply } => drop(reply.send(core.health)),
            Request::RecorderOrder { reply, .. } => {
                let why = "the call has no such recording session".to_owned();
                drop(reply.send(Err(ActionError::WrongState(why))));
            }
            Request::Siprec { reply } => drop(reply.send(Vec::new())),
            Request::SiprecSession { reply, .. } => drop(reply.send(None)),
            Request::Hangup { id, reply } => {
                core.hung_up.push(id.clone());
                drop(reply.send(find(&core, &id).ok_or(ActionError::NotFound)));
            }
            Request::Transfer { call, order, reply } => {
                let result = match order.target.as_str() {
                    "sip:carol@example.com" => find(&core, &call).ok_or(ActionError::NotFound),
                    _ => Err(ActionError::Invalid("target".to_owned())),
                };
                drop(reply.send(result));
            }
            Request::RecordingAction {
                call,
                action,
                reply,
            } => {
                let result = match (find(&core, &call), action) {
                    (None, _) => Err(ActionError::NotFound),
                    (Some(_), RecordingAction::Pause) => {
                        core.recordings[0].state = RecordingState::Paused;
                        Ok(core.recordings[0].clone())
                    }
                    (Some(_), action) => Err(ActionError::WrongState(format!("cannot {action:?}"))),
                };
                drop(reply.send(result));
            }
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut raw = Vec::new();
        reader.read_to_end(&mut raw).unwrap();
        let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let body = if chunked { unchunk(&raw) } else { raw };
        Self {
            status,
            headers,
            body,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Expects an error of this status and code, in the documented shape.
    fn refused(&self, status: u16, code: &str) {
        let body = self.json();
        assert_eq!(
            (self.status, body["error"]["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        assert!(body["error"]["message"].is_string(), "{body}");
    }
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 2 + size + 2..];
    }
}

fn live_call(started_ms: i64, state: CallState) -> Call {
    let body = json!({ "id": new_id(), "state": state, "started_at": Timestamp(started_ms), "caller": "alice" });
    serde_json::from_value(body).unwrap()
}

fn live_recording(call: &Call) -> Recording {
    let body = json!({
        "id": new_id(), "call_id": call.id, "state": "recording", "started_at": call.started_at, "duration_ms": 40,
    });
    serde_json::from_value(body).unwrap()
}

/// The recordings of a data directory.
fn library(catalog: CatalogHandle, data_dir: &Path, signer: Option<Signer>) -> Arc<Library> {
    Arc::new(Library {
        catalog,
        segments: data_dir.join("segments"),
        scratch: scratch_of(data_dir),
        keys: Arc::new(Keys::none()),
        signer: signer.map(Arc::new),
    })
}

#[test]
fn live_calls_are_listed_newest_first_in_pages() {
    let server = Server::start(None, &[]);
    let calls: Vec<Call> = (1..=5)
        .map(|at| live_call(at * 1000, CallState::Active))
        .collect();
    server.core.lock().unwrap().calls.clone_from(&calls);
    let first = server.get("/v1/calls?limit=3").json();
    let ids = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let newest: Vec<String> = calls.iter().rev().map(|call| call.id.clone()).collect();
    assert_eq!(ids(&first), newest[..3]);
    let next = first["next"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/calls?limit=3&after={next}"))
        .json();
    assert_eq!(
        (ids(&rest), &rest["next"]),
        (newest[3..].to_vec(), &Value::Null)
    );
    assert_eq!(
        server.get("/v1/calls?state=ringing").json()["items"],
        json!([])
    );
    let one = server.get(&format!("/v1/calls/{}", calls[0].id)).json();
    assert_eq!(one["started_at"], "1970-01-01T00:00:01.000Z");
    for (key, value) in [
        ("tenant", Value::Null),
        ("answered_at", Value::Null),
        ("legs", json!([])),
        ("attributes", json!({})),
    ] {
        assert_eq!(one[key], value, "{key}");
    }
}

#[test]
fn history_comes_from_the_catalog() {
    let script = Script::new(1, START, 10);
    let server = Server::start(None, std::slice::from_ref(&script));
    assert_eq!(server.get("/v1/calls").json()["items"], json!([]));
    let history = server.get("/v1/calls?state=ended").json();
    assert_eq!(history["items"][0]["id"], json!(script.call_id));
    assert_eq!(history["items"][0]["ended_by"], "callee");
    let one = server.get(&format!("/v1/calls/{}", script.call_id)).json();
    assert_eq!(one["recordings"], json!([script.recording_id]));
    assert_eq!(
        server.get("/v1/calls?state=failed").json()["items"],
        json!([])
    );
    server
        .get("/v1/calls/0193e000-0000-7000-8000-000000000000")
        .refused(404, "not_found");
    server
        .ask("DELETE", &format!("/v1/calls/{}", script.call_id), "", "")
        .refused(409, "wrong_state");
    let target = format!("/v1/calls/{}/recording", script.call_id);
    server
        .ask("POST", &target, "", r#"{"action":"pause"}"#)
        .refused(409, "wrong_state");
}

#[test]
fn actions_reach_the_core_and_bad_ones_do_not() {
    let server = Server::start(None, &[]);
    let call = live_call(1000, CallState::Active);
    server.core.lock().unwrap().calls.push(call.clone());
    server
        .core
        .lock()
        .unwrap()
        .recordings
        .push(live_recording(&call));
    let hung_up = server.ask("DELETE", &format!("/v1/calls/{}", call.id), "", "");
    assert_eq!(
        (hung_up.status, hung_up.json()["id"].as_str()),
        (202, Some(call.id.as_str()))
    );
    assert_eq!(server.core.lock().unwrap().hung_up, [call.id.as_str()]);
    let target = format!("/v1/calls/{}/recording", call.id);
    for body in [
        r#"{"action":"pause"}"#,
        r#"{"action":"pause","recorder":"all"}"#,
    ] {
        let paused = server.ask("POST", &target, "", body);
        assert_eq!(
            (paused.status, paused.json()["state"].as_str()),
            (200, Some("paused"))
        );
    }
    server
        .ask("POST", &target, "", r#"{"action":"resume"}"#)
        .refused(409, "wrong_state");
    server
        .ask(
            "POST",
            "/v1/calls/nobody/recording",
            "",
            r#"{"action":"stop"}"#,
        )
        .refused(404, "not_found");
    let transfer = format!("/v1/calls/{}/transfer", call.id);
    for (body, status) in [
        (r#"{"target":"sip:carol@example.com"}"#, 202),
        (
            r#"{"target":"sip:carol@example.com","leg":"caller","mode":"attended"}"#,
            202,
        ),
        (r#"{"target":"carol"}"#, 400),
        (r#"{"leg":"caller"}"#, 400),
        (
            r#"{"target":"sip:carol@example.com","mode":"sideways"}"#,
            400,
        ),
    ] {
        assert_eq!(
            server.ask("POST", &transfer, "", body).status,
            status,
            "{body}"
        );
    }
    for body in [
        "",
        "{}",
        "[]",
        r#"{"action":"dance"}"#,
        r#"{"action":"stop","x":1}"#,
        "\u{0}",
    ] {
        server
            .ask("POST", &target, "", body)
            .refused(400, "bad_request");
    }
    server
        .ask(
            "POST",
            &target,
            "",
            r#"{"action":"stop","recorder":"main"}"#,
        )
        .refused(409, "wrong_state");
    server
        .ask(
            "POST",
            &target,
            "",
            r#"{"action":"stop","servers":["sip:a"]}"#,
        )
        .refused(400, "bad_request");
    server
        .ask("POST", &target, "", &"x".repeat(70_000))
        .refused(413, "too_large");
}

#[test]
fn recordings_are_found_by_every_filter() {
    let scripts: Vec<Script> = (1..=4)
        .map(|number| {
            Script::new(
                number,
                Timestamp(START.0 + i64::from(u32::try_from(number).unwrap()) * 1000),
                5,
            )
        })
        .collect();
    let server = Server::start(None, &scripts);
    let count = |query: &str| {
        server.get(&format!("/v1/recordings?{query}")).json()["items"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(""), 4);
    assert_eq!(count("from=2026-11-21T09:30:03Z"), 2);
    assert_eq!(count("to=2026-11-21T10:30:02%2B01:00"), 2);
    assert_eq!(count("to=2026-11-21T10:30:02+01:00"), 2);
    assert_eq!(count("party=ali"), 4);
    assert_eq!(count("party=%2B493"), 4);
    assert_eq!(count("party=+493"), 4);
    assert_eq!(count("party=493"), 0);
    assert_eq!(count("call_id=b3@test"), 1);
    assert_eq!(count("attr.queue=sales"), 4);
    assert_eq!(count("attr.queue=support"), 0);
    assert_eq!(count("attr.queue=sales&call_id=a1@test&state=complete"), 1);
    assert_eq!(count("state=partial"), 0);
    assert_eq!(count("tenant=acme"), 0);
    let page = server.get("/v1/recordings?limit=1").json();
    assert_eq!(page["items"][0]["id"], json!(scripts[3].recording_id));
    let next = page["next"].as_str().unwrap();
    let page = server
        .get(&format!("/v1/recordings?limit=1&after={next}"))
        .json();
    assert_eq!(page["items"][0]["id"], json!(scripts[2].recording_id));
}

#[test]
fn wrong_parameters_are_refused() {
    let server = Server::start(None, &[]);
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=ten",
        "after=x",
        "after=5.x",
        "from=yesterday",
        "to=2026-11-21",
        "state=happy",
        "limt=5",
        "limit=5&limit=6",
    ] {
        server
            .get(&format!("/v1/recordings?{query}"))
            .refused(400, "bad_request");
    }
    server
        .get("/v1/calls?state=recording")
        .refused(400, "bad_request");
    server.get("/v1/nothing").refused(404, "not_found");
    server.get("/").refused(404, "not_found");
    server
        .ask("PUT", "/v1/calls", "", "")
        .refused(405, "method_not_allowed");
    let sessions = server.get("/v1/siprec").json();
    assert_eq!(sessions, json!({ "items": [], "next": null }));
    server.get("/v1/siprec/x").refused(404, "not_found");
    server
        .ask("DELETE", "/v1/recordings/x", "", "")
        .refused(404, "not_found");
    assert_eq!(server.get("/v1/recordings?limit=1000").status, 200);
}

#[test]
fn a_running_recording_is_shown_as_the_core_knows_it() {
    let server = Server::start(None, &[]);
    let call = live_call(1000, CallState::Active);
    let mut recording = live_recording(&call);
    server.catalog.put_recording(
        recording.clone(),
        trunkline_sinks::catalog::Storage {
            number: 9,
            ..Default::default()
        },
    );
    recording.duration_ms = 12_345;
    server
        .core
        .lock()
        .unwrap()
        .recordings
        .push(recording.clone());
    let target = format!("/v1/recordings/{}", recording.id);
    assert_eq!(server.get(&target).json()["duration_ms"], 12_345);
    assert_eq!(
        server.get("/v1/recordings?state=recording").json()["items"][0]["duration_ms"],
        12_345
    );
    let receipt = server.get(&format!("{target}/receipt")).json();
    assert_eq!(
        (&receipt["verdict"], &receipt["caller"]["expected"]),
        (&Value::Null, &json!(0))
    );
    server
        .get(&format!("{target}/wav"))
        .refused(404, "not_found");
}

#[test]
fn media_and_receipt_of_a_recording_come_out_whole() {
    let script = Script::new(1, START, 250);
    let server = Server::start(None, std::slice::from_ref(&script));
    let target = format!("/v1/recordings/{}", script.recording_id);
    let wav = server.get(&format!("{target}/wav"));
    assert_eq!(
        (wav.status, wav.header("content-type")),
        (200, Some("audio/wav"))
    );
    assert_eq!(
        wav.header("content-length"),
        Some(wav.body.len().to_string().as_str())
    );
    assert_eq!(&wav.body[..4], b"RIFF");
    assert_eq!(wav.body.len(), 44 + 5 * 8000 * 4, "5 s at 8 kHz, stereo");
    let middle: Vec<i16> = wav.body[44 + 8000 * 8..][..400]
        .chunks(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    assert!(
        middle
            .chunks(2)
            .all(|pair| pair[0] > 30_000 && pair[1] == 0),
        "caller left: {middle:?}"
    );
    let sn3 = server.get(&format!("{target}/sn3"));
    assert_eq!(sn3.status, 200);
    let capture = trunkline_sn3::Capture::from_bytes(sn3.body, "x".as_ref()).unwrap();
    assert_eq!(capture.facts().audio_frames, [250, 250]);
    assert_eq!(
        capture.facts().open.as_ref().unwrap().recording_id,
        script.recording_id
    );
    let receipt = server.get(&format!("{target}/receipt")).json();
    assert_eq!(
        (&receipt["verdict"], &receipt["callee"]["written"]),
        (&json!("complete"), &json!(250))
    );
    assert_eq!(receipt["chain"]["algorithm"], "blake3");
    let evidence = server.get(&format!("{target}/evidence"));
    assert_eq!(
        (evidence.status, evidence.header("content-type")),
        (200, Some("application/x-tar"))
    );
    let file = server._folder.path().join("evidence.tar");
    std::fs::write(&file, &evidence.body).unwrap();
    let report = trunkline_sn3::evidence::verify(&file, None).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
    assert_eq!(report.recording_id, script.recording_id);
    assert_eq!(
        report.chain_head.as_deref(),
        receipt["chain"]["head"].as_str()
    );
    let copy = trunkline_sn3::Capture::open(&file).unwrap();
    assert_eq!(copy.facts().audio_frames, [250, 250]);
    let mut deleted: Recording = serde_json::from_value(server.get(&target).json()).unwrap();
    deleted.state = RecordingState::Deleted;
    server.catalog.put_recording(
        deleted,
        trunkline_sinks::catalog::Storage {
            number: 1,
            ..Default::default()
        },
    );
    server.get(&format!("{target}/wav")).refused(410, "deleted");
    server.get(&format!("{target}/sn3")).refused(410, "deleted");
    server
        .get(&format!("{target}/evidence"))
        .refused(410, "deleted");
    assert_eq!(server.get(&target).json()["state"], "deleted");
    server
        .get("/v1/recordings/nobody/wav")
        .refused(404, "not_found");
}

/// Whether any segment holds these bytes.
fn segments_hold(server: &Server, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(server._folder.path().join("segments")).unwrap();
    files.into_iter().any(|file| {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn a_deleted_recording_leaves_every_file_and_stays_listed() {
    let scripts = [
        Script::new(1, START, 250),
        Script::new(2, Timestamp(START.0 + 1000), 250),
    ];
    let server = Server::start(None, &scripts);
    let [gone, kept] = [&scripts[0].recording_id, &scripts[1].recording_id];
    let target = format!("/v1/recordings/{gone}");
    let kept_wav = server.get(&format!("/v1/recordings/{kept}/wav")).body;
    let before = server.get(&target).json();
    assert!(segments_hold(&server, gone.as_bytes()));

    let held = server.ask("PUT", &format!("{target}/hold"), "", "");
    assert_eq!((held.status, &held.json()["held"]), (200, &json!(true)));
    server
        .ask("DELETE", &target, "", "")
        .refused(409, "wrong_state");
    assert!(segments_hold(&server, gone.as_bytes()));
    let released = server.ask("DELETE", &format!("{target}/hold"), "", "");
    assert_eq!(released.json()["held"], false);

    for _ in 0..2 {
        let deleted = server.ask("DELETE", &target, "", "");
        assert_eq!(
            (deleted.status, deleted.json()["state"].as_str()),
            (200, Some("deleted"))
        );
    }
    assert!(!segments_hold(&server, gone.as_bytes()));
    server.get(&format!("{target}/wav")).refused(410, "deleted");
    server.get(&format!("{target}/sn3")).refused(410, "deleted");
    server
        .ask("PUT", &format!("{target}/hold"), "", "")
        .refused(410, "deleted");
    let listed = server.get("/v1/recordings?state=deleted").json();
    let mut expected = before;
    expected["state"] = json!("deleted");
    assert_eq!(listed["items"], json!([expected]));

    assert_eq!(
        server.get(&format!("/v1/recordings/{kept}/wav")).body,
        kept_wav
    );
    for file in std::fs::read_dir(server._folder.path().join("segments")).unwrap() {
        let report = trunkline_sn3::verify::verify(&file.unwrap().path()).unwrap();
        assert!(report.is_whole(), "{:?}", report.damages);
        assert!(report.erased > 0);
    }
}

#[test]
fn attributes_and_holds_outlast_what_the_core_writes_later() {
    let server = Server::start(None, &[]);
    let call = live_call(1000, CallState::Active);
    let mut recording = live_recording(&call);
    recording
        .attributes
        .insert("queue".to_owned(), "sales".to_owned());
    let place = trunkline_sinks::catalog::Storage {
        number: 9,
        ..Default::default()
    };
    server.catalog.put_recording(recording.clone(), place);
    server
        .core
        .lock()
        .unwrap()
        .recordings
        .push(recording.clone());
    let target = format!("/v1/recordings/{}", recording.id);
    let attributes = format!("{target}/attributes");
    let changed = server.ask(
        "PATCH",
        &attributes,
        "",
        r#"{"ticket": "A-17", "queue": null}"#,
    );
    assert_eq!(changed.json()["attributes"], json!({ "ticket": "A-17" }));
    assert_eq!(
        server.ask("PUT", &format!("{target}/hold"), "", "").status,
        200
    );
    server
        .ask("DELETE", &target, "", "")
        .refused(409, "wrong_state");

    recording.state = RecordingState::Complete;
    server.core.lock().unwrap().recordings.clear();
    server.catalog.put_recording(recording, place);
    let found = server.get("/v1/recordings?attr.ticket=A-17").json();
    assert_eq!(
        (&found["items"][0]["state"], &found["items"][0]["held"]),
        (&json!("complete"), &json!(true))
    );
    assert_eq!(
        server.get("/v1/recordings?attr.queue=sales").json()["items"],
        json!([])
    );
    server
        .ask("DELETE", &target, "", "")
        .refused(409, "wrong_state");
    let many: std::collections::BTreeMap<_, _> = (0..65).map(|n| (format!("n{n}"), "x")).collect();
    for body in [
        "".to_owned(),
        "[]".to_owned(),
        r#"{"a": 1}"#.to_owned(),
        r#"{"": "x"}"#.to_owned(),
        json!({ "a": "x".repeat(1025) }).to_string(),
        json!(many).to_string(),
    ] {
        server
            .ask("PATCH", &attributes, "", &body)
            .refused(400, "bad_request");
    }
    server
        .ask("PATCH", "/v1/recordings/nobody/attributes", "", "{}")
        .refused(404, "not_found");
}

#[test]
fn health_says_whether_new_calls_would_be_refused() {
    let server = Server::start(None, &[]);
    let ask = |health: Health| {
        server.core.lock().unwrap().health = health;
        let answer = server.get("/v1/health");
        (
            answer.status,
            answer.json()["status"].as_str().unwrap().to_owned(),
            answer.json(),
        )
    };
    let well = Health {
        dataplane_up: true,
        ..Health::default()
    };
    let (status, word, body) = ask(well);
    assert_eq!((status, word.as_str()), (200, "ok"));
    assert!(body["disk_free_bytes"].as_u64().is_some(), "{body}");
    let (status, word, _) = ask(Health {
        capture_failing: true,
        ..well
    });
    assert_eq!((status, word.as_str()), (200, "degraded"));
    let (status, word, _) = ask(Health {
        at_capacity: true,
        ..well
    });
    assert_eq!((status, word.as_str()), (503, "degraded"));
    let (status, word, body) = ask(Health::default());
    assert_eq!(
        (status, word.as_str(), body["dataplane"].as_str()),
        (503, "degraded", Some("down"))
    );
    let (status, word, _) = ask(Health {
        draining: true,
        ..well
    });
    assert_eq!((status, word.as_str()), (503, "draining"));
    let metrics = server.get("/metrics");
    assert!(
        String::from_utf8(metrics.body)
            .unwrap()
            .contains("trunkline_rtp_strangers_total 0\n")
    );
}

#[test]
fn the_token_opens_and_nothing_else_does() {
    let server = Server::start(Some("s3cret"), &[]);
    let with = |header: &str| server.ask("GET", "/v1/calls", header, "");
    assert_eq!(with("Authorization: Bearer s3cret\r\n").status, 200);
    assert_eq!(with("authorization: bearer s3cret\r\n").status, 200);
    for header in [
        "",
        "Authorization: Bearer s3cre\r\n",
        "Authorization: Basic s3cret\r\n",
        "Authorization: Bearer\r\n",
    ] {
        let answer = with(header);
        answer.refused(401, "unauthorized");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    for target in ["/metrics", "/v1/health", "/v1/nothing"] {
        server.get(target).refused(401, "unauthorized");
    }
}

/// Reads events until `count` have come; gives (id, name, data) of each.
fn read_events(
    server: &Server,
    last_id: Option<&str>,
    count: usize,
    publish: impl FnOnce(),
) -> Vec<(String, String, Value)> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let resume = last_id
        .map(|id| format!("Last-Event-ID: {id}\r\n"))
        .unwrap_or_default();
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: t\r\n{resume}\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let greeted = lines.find(|line| line.starts_with(": connected"));
    assert!(greeted.is_some());
    publish();
    let mut events = Vec::new();
    let (mut id, mut name) = (String::new(), String::new());
    while events.len() < count {
        let line = lines.next().unwrap();
        if let Some(value) = line.strip_prefix("id: ") {
            id = value.to_owned();
        } else if let Some(value) = line.strip_prefix("event: ") {
            name = value.to_owned();
        } else if let Some(value) = line.strip_prefix("data: ") {
            events.push((
                id.clone(),
                name.clone(),
                serde_json::from_str(value).unwrap(),
            ));
        }
    }
    events
}

#[test]
fn events_arrive_and_are_resumed_without_loss() {
    let server = Server::start(None, &[]);
    let call = live_call(1000, CallState::Active);
    let publish = |kinds: &[EventKind]| {
        for kind in kinds {
            server
                .events
                .publish(*kind, Timestamp(5), &Subject::Call(&call));
        }
    };
    publish(&[EventKind::CallStarted]);
    let live = read_events(&server, None, 2, || {
        publish(&[EventKind::CallRinging, EventKind::CallAnswered])
    });
    assert_eq!(
        (live[0].1.as_str(), live[1].1.as_str()),
        ("call.ringing", "call.answered")
    );
    assert_eq!(live[0].2["call"]["id"], json!(call.id));
    assert_eq!(live[0].2["at"], "1970-01-01T00:00:00.005Z");
    publish(&[EventKind::CallHeld; 300]);
    let resumed = read_events(&server, Some(&live[0].0), 302, || {
        publish(&[EventKind::CallEnded])
    });
    assert_eq!(resumed[0], live[1]);
    assert!(resumed[1..301].iter().all(|event| event.1 == "call.held"));
    assert_eq!(resumed[301].1, "call.ended");
    let answer = server.ask("GET", "/v1/events", "Last-Event-ID: nonsense\r\n", "");
    answer.refused(400, "bad_request");
}
