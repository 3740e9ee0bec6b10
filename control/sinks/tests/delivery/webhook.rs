//! Signed requests.

use crate::http::{Reply, Request, Server};
use crate::place::{Place, files, sinks, wait_for};
use hmac::{Hmac, Mac};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use trunkline_sinks::catalog::{DeliveryState, Ordered};

/// A receiver that checks signatures, notes what it got, and answers as it is told.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<Value>>>,
    /// Answers to give first: a status, 0 = none at all, 1 = a cut one.
    faults: Arc<Mutex<Vec<u16>>>,
    ids: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    fn serve(&self) -> Server {
        let own = self.clone();
        Server::start(move |request| own.answer(&request))
    }

    fn answer(&self, request: &Request) -> Reply {
        let delivery = request.headers["trunkline-delivery"].clone();
        self.ids.lock().unwrap().push(delivery);
        let mut faults = self.faults.lock().unwrap();
        if !faults.is_empty() {
            return match faults.remove(0) {
                0 => Reply::Hang,
                1 => Reply::Cut,
                status => Reply::status(status),
            };
        }
        if !is_signed(request) {
            return Reply::status(401);
        }
        let body = serde_json::from_slice(&request.body).unwrap();
        self.got.lock().unwrap().push(body);
        Reply::status(204)
    }

    fn got(&self) -> Vec<Value> {
        self.got.lock().unwrap().clone()
    }
}

/// As docs/sinks.md says how to check it.
fn is_signed(request: &Request) -> bool {
    let header = &request.headers["trunkline-signature"];
    let (time, signature) = header.split_once(",v1=").unwrap();
    let at: u64 = time.trim_start_matches("t=").parse().unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(&request.body);
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    now.abs_diff(at) < 60 && mac.verify_slice(&signature).is_ok()
}

fn webhook(place: &Place, server: &Server, more: &str) -> String {
    std::fs::write(place.path("secret"), "s3cret\n").unwrap();
    format!(
        "[[sink]]\nname = \"crm\"\nkind = \"webhook\"\nurl = \"{}/hook\"\nsecret_file = \"{}\"\n\
         timeout_s = 1\n{more}\n",
        server.url(),
        place.text("secret")
    )
}

#[test]
fn a_finished_recording_is_told_signed_with_the_head_of_its_chain() {
    let mut place = Place::new(3, 20);
    let receiver = Receiver::default();
    let server = receiver.serve();
    place.start(&sinks(&webhook(&place, &server, "")));
    place.wait(DeliveryState::Done, 3);
    let mut got = receiver.got();
    got.sort_by_key(|one| one["recording"]["id"].to_string());
    assert_eq!(got.len(), 3);
    assert_eq!(got[0]["event"], "recording.finished");
    let mut ids: Vec<&str> = (0..3).map(|index| place.id(index)).collect();
    ids.sort_unstable();
    assert_eq!(got[0]["recording"]["id"], ids[0]);
    assert_eq!(got[0]["call"]["callee"], "+4930");
    let head = got[0]["recording"]["receipt"]["chain"]["head"].as_str();
    assert_eq!(head.map(str::len), Some(64), "{}", got[0]);
}

#[test]
fn faults_are_got_over_one_after_the_other() {
    let mut place = Place::new(1, 20);
    let receiver = Receiver::default();
    *receiver.faults.lock().unwrap() = vec![500, 1, 0];
    let server = receiver.serve();
    place.start(&sinks(&webhook(&place, &server, "")));
    let done = place.wait(DeliveryState::Done, 1);
    assert_eq!((receiver.got().len(), done[0].attempts), (1, 4));
    let ids = receiver.ids.lock().unwrap().clone();
    assert!(ids.iter().all(|id| *id == ids[0]), "one delivery: {ids:?}");
}

#[test]
fn a_dead_letter_survives_and_can_be_delivered_again_or_dropped() {
    let mut place = Place::new(2, 20);
    let receiver = Receiver::default();
    *receiver.faults.lock().unwrap() = vec![500, 410];
    let server = receiver.serve();
    let text = webhook(&place, &server, "give_up_after_h = 0\nparallel = 1");
    place.start(&sinks(&text));
    place.wait(DeliveryState::Dead, 2);
    place.start(&sinks(&text));
    let dead = place.wait(DeliveryState::Dead, 2);
    let error = |index: usize| dead[index].error.clone().unwrap_or_default();
    assert!(
        error(0).contains("410") && error(1).contains("500"),
        "{dead:?}"
    );
    let catalog = place.catalog();
    assert_eq!(catalog.deliver_again(dead[0].id).unwrap(), Ordered::Done);
    let done = place.wait(DeliveryState::Done, 1);
    assert_eq!(done[0].id, dead[0].id);
    let again = catalog.deliver_again(dead[0].id).unwrap();
    assert_eq!(again, Ordered::NotDead(DeliveryState::Done));
    assert_eq!(catalog.drop_delivery(dead[1].id).unwrap(), Ordered::Done);
    assert_eq!(catalog.drop_delivery(12_345).unwrap(), Ordered::Unknown);
    assert!(place.deliveries(DeliveryState::Dead).is_empty());
    assert_eq!(receiver.got().len(), 1, "the dropped one is told to nobody");
}

#[test]
fn a_receiver_that_hangs_delays_no_other_sink() {
    let mut place = Place::new(20, 5);
    let receiver = Receiver::default();
    *receiver.faults.lock().unwrap() = vec![0; 1000];
    let server = receiver.serve();
    let text = format!(
        "{}[[sink]]\nkind = \"directory\"\npath = \"{}\"\nformats = [\"sn3\"]\n",
        webhook(&place, &server, ""),
        place.text("out")
    );
    place.start(&sinks(&text));
    let done = place.wait(DeliveryState::Done, 20);
    assert!(done.iter().all(|one| one.sink == "directory"));
    assert_eq!(files(&place.path("out")).len(), 20);
    assert!(receiver.got().is_empty());
    // It comes back.
    receiver.faults.lock().unwrap().clear();
    wait_for("the backlog", || (receiver.got().len() == 20).then_some(()));
}
