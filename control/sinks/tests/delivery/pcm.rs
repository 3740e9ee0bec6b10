//! Live sound over sockets.

use crate::place::{Place, sinks, wait_for};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio_tungstenite::tungstenite::Message;
use trunkline_hooks::{CallMeta, Direction, RecordingChannel};
use trunkline_sinks::catalog::Storage;

pub const CALL_ID: &str = "a1@test";

pub fn meta() -> CallMeta {
    CallMeta {
        call_id: CALL_ID.to_owned(),
        correlation_id: String::new(),
        direction: Direction::Inbound,
        scenario: String::new(),
        tenant_id: "acme".to_owned(),
        remote_addr: "192.0.2.1:5060".to_owned(),
        local_ip: "192.0.2.2".to_owned(),
        codec: "PCMU".to_owned(),
        started_at: SystemTime::now(),
        call: "0193e5c2-7a41-7c11-b2a5-1f0e6c9d8a77".to_owned(),
    }
}

/// 20 ms at 8 kHz, each piece known by its value.
pub fn piece(value: u8) -> Arc<[u8]> {
    vec![value; 320].into()
}

fn say(place: &Place, pieces: u8) {
    let dispatcher = place.dispatcher.as_ref().unwrap();
    dispatcher.begin_recording(meta(), 8000, "PCMU");
    for value in 0..pieces {
        dispatcher.append_pcm(&CALL_ID.into(), RecordingChannel::Caller, piece(value));
        dispatcher.append_pcm(&CALL_ID.into(), RecordingChannel::Agent, piece(value + 100));
    }
}

/// The recording reaches its final state.
fn finish(place: &Place) {
    let recording = serde_json::json!({
        "id": trunkline_sinks::object::new_id(), "call_id": meta().call, "state": "complete",
        "started_at": "2026-11-20T10:00:00.000Z", "sip_call_ids": [CALL_ID],
    });
    let storage = Storage {
        number: 1,
        ..Storage::default()
    };
    let recording = serde_json::from_value(recording).unwrap();
    assert!(place.catalog().put_recording(recording, storage));
    assert!(place.catalog().flush(std::time::Duration::from_secs(20)));
    place.dispatcher.as_ref().unwrap().pcm_done(CALL_ID);
}

fn expected(first: u8, pieces: u8) -> Vec<u8> {
    (0..pieces)
        .flat_map(|value| piece(first + value).to_vec())
        .collect()
}

#[test]
fn each_channel_comes_over_a_unix_socket_of_its_own() {
    let mut place = Place::new(0, 0);
    let path = place.path("asr.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let start: Value = serde_json::from_str(&line).unwrap();
            let mut sound = Vec::new();
            stream.read_to_end(&mut sound).unwrap();
            heard.push((start["channel"].as_str().unwrap().to_owned(), start, sound));
        }
        heard.sort_by(|one, other| one.0.cmp(&other.0));
        heard
    });
    let text = format!(
        "[[sink]]\nkind = \"pcm\"\nsocket = \"{}\"\n",
        path.display()
    );
    place.start(&sinks(&text));
    say(&place, 50);
    finish(&place);
    let heard = heard.join().unwrap();
    let [(callee, _, theirs), (caller, start, ours)] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!((callee.as_str(), caller.as_str()), ("callee", "caller"));
    assert_eq!(start["type"], "start");
    assert_eq!(
        (&start["rate_hz"], &start["encoding"]),
        (&8000.into(), &"pcm_s16le".into())
    );
    assert_eq!(
        (&start["sip_call_id"], &start["tenant"]),
        (&CALL_ID.into(), &"acme".into())
    );
    assert_eq!(start["from_sample"], 0);
    assert_eq!(*ours, expected(0, 50));
    assert_eq!(*theirs, expected(100, 50));
}

#[test]
fn a_websocket_gets_start_sound_and_stop_and_may_come_late() {
    let mut place = Place::new(0, 0);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!(
        "[[sink]]\nkind = \"pcm\"\nurl = \"ws://{address}/asr\"\nchannels = [\"callee\"]\n"
    );
    place.start(&sinks(&text));
    // Nobody listens yet: what is said is lost to the recogniser, and counted.
    say(&place, 20);
    let dropped = |place: &Place| place.dispatcher.as_ref().unwrap().counts()[0].dropped_pcm;
    wait_for("pieces to be dropped", || {
        (dropped(&place) == 20).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let messages = Arc::clone(&heard);
    let served = runtime.spawn(async move {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_tungstenite::accept_async(stream).await.unwrap();
        // Recognisers talk back; nobody has to listen.
        stream
            .send(Message::Text("{\"hello\": 1}".into()))
            .await
            .unwrap();
        while let Some(Ok(message)) = stream.next().await {
            messages.lock().unwrap().push(message);
        }
    });
    let starts = || {
        let heard = heard.lock().unwrap();
        heard.first().cloned()
    };
    // It is tried again each second, and then goes on from now.
    let mut value = 0;
    let start = wait_for("a start", || {
        let dispatcher = place.dispatcher.as_ref().unwrap();
        dispatcher.append_pcm(&CALL_ID.into(), RecordingChannel::Agent, piece(value));
        value = value.wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_millis(20));
        starts()
    });
    let start: Value = serde_json::from_str(start.to_text().unwrap()).unwrap();
    assert!(start["from_sample"].as_u64() >= Some(20 * 160), "{start}");
    finish(&place);
    runtime.block_on(served).unwrap();
    let heard = heard.lock().unwrap();
    let last = heard.iter().rfind(|message| message.is_text()).unwrap();
    assert_eq!(last.to_text().unwrap(), r#"{"type":"stop"}"#);
    let sound: Vec<&Message> = heard.iter().filter(|message| message.is_binary()).collect();
    assert!(!sound.is_empty() && sound.iter().all(|one| one.len() == 320));
}

#[test]
fn a_recogniser_that_hangs_loses_sound_and_holds_up_nobody() {
    let mut place = Place::new(0, 0);
    let path = place.path("asr.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let text = format!(
        "[[sink]]\nname = \"stuck\"\nkind = \"pcm\"\nsocket = \"{}\"\nchannels = [\"caller\"]\n\
         [[sink]]\nkind = \"directory\"\npath = \"{}\"\n",
        path.display(),
        place.text("out")
    );
    place.start(&sinks(&text));
    let dispatcher = place.dispatcher.as_ref().unwrap();
    dispatcher.begin_recording(meta(), 8000, "PCMU");
    let (_stuck, _) = listener.accept().unwrap();
    for _ in 0..20_000 {
        dispatcher.append_pcm(&CALL_ID.into(), RecordingChannel::Caller, piece(1));
    }
    wait_for("dropped sound", || {
        let counts = dispatcher.counts();
        let stuck = counts.iter().find(|one| one.sink == "recording:stuck")?;
        (stuck.dropped_pcm > 10_000).then_some(())
    });
    finish(&place);
    place.wait(trunkline_sinks::catalog::DeliveryState::Done, 2);
}
