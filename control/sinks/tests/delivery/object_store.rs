//! Objects in a bucket.

use crate::http::Server;
use crate::place::{Place, delete, sinks, wait_for};
use crate::s3::{Fault, S3};
use trunkline_config::{Sink, SinkKind};
use trunkline_sinks::catalog::DeliveryState;

fn store(place: &Place, server: &Server, more: &str) -> Vec<Sink> {
    std::fs::write(place.path("secret"), "s3cret").unwrap();
    let (secret, url) = (place.text("secret"), server.url());
    let mut sinks = sinks(&format!(
        "[[sink]]\nname = \"cloud\"\nkind = \"object_store\"\nbucket = \"calls\"\nendpoint = \"{url}\"\n\
         access_key = \"me\"\nsecret_key_file = \"{secret}\"\ntemplate = \"{{tenant}}/{{recording}}\"\n{more}\n"
    ));
    if let SinkKind::ObjectStore(store) = &mut sinks[0].kind {
        // Smaller than S3 allows, so that a short recording takes several.
        store.part_bytes = 64 * 1024;
        store.delivery.timeout_s = 1;
    }
    sinks
}

fn key(place: &Place, index: usize, extension: &str) -> String {
    format!("calls/_/{}.{extension}", place.id(index))
}

#[test]
fn objects_arrive_in_one_piece_or_in_parts_and_are_confirmed() {
    let mut place = Place::new(2, 500);
    let s3 = S3::default();
    let server = s3.serve();
    place.start(&store(&place, &server, ""));
    let done = place.wait(DeliveryState::Done, 2);
    let state = s3.state();
    let keys: Vec<String> = (0..2)
        .flat_map(|index| ["json", "sn3", "wav"].map(|extension| key(&place, index, extension)))
        .collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(state.objects.keys().cloned().collect::<Vec<_>>(), sorted);
    let wav = &state.objects[&key(&place, 0, "wav")];
    assert!(wav.starts_with(b"RIFF") && wav.len() == 44 + 500 * 160 * 4);
    let sn3 = &state.objects[&key(&place, 0, "sn3")];
    assert!(sn3.starts_with(b"SN3") && sn3.len() > 2 * 64 * 1024);
    let about: serde_json::Value =
        serde_json::from_slice(&state.objects[&key(&place, 0, "json")]).unwrap();
    assert_eq!(about["files"][1]["bytes"], wav.len());
    let count = |wanted: &str| state.requests.iter().filter(|one| *one == wanted).count();
    assert!(count("PUT part") >= 12, "{:?}", state.requests);
    assert_eq!((count("POST upload"), count("PUT object")), (4, 2));
    assert!(count("GET object") >= 6, "read back: {:?}", state.requests);
    let result = done[0].result.clone().unwrap();
    assert_eq!(
        result.url,
        Some(format!("s3://calls/{}", result.object_key.unwrap()))
    );
}

#[test]
fn a_store_that_refuses_for_a_while_is_asked_again() {
    let mut place = Place::new(1, 500);
    let s3 = S3::default();
    s3.set(Fault::Unavailable(9));
    let server = s3.serve();
    place.start(&store(&place, &server, ""));
    place.wait(DeliveryState::Done, 1);
    assert_eq!(s3.state().objects.len(), 3);
}

#[test]
fn a_store_that_lies_is_not_believed() {
    for fault in [Fault::Truncates, Fault::Corrupts, Fault::GivesLess] {
        let mut place = Place::new(1, 500);
        let s3 = S3::default();
        s3.set(fault);
        let server = s3.serve();
        place.start(&store(&place, &server, ""));
        let waiting = wait_for("a failure", || {
            let waiting = place.deliveries(DeliveryState::Waiting);
            (waiting[0].attempts > 0).then_some(waiting)
        });
        assert!(waiting[0].error.is_some(), "{fault:?}: {waiting:?}");
        assert!(
            place.deliveries(DeliveryState::Done).is_empty(),
            "{fault:?}"
        );
        s3.set(Fault::None);
        place.wait(DeliveryState::Done, 1);
        let sn3 = s3.state().objects[&key(&place, 0, "sn3")].clone();
        let name = place.path("back.sn3");
        std::fs::write(&name, sn3).unwrap();
        let capture = trunkline_sn3::Capture::open(&name).unwrap();
        assert!(capture.damages().is_empty(), "{fault:?}");
    }
}

#[test]
fn by_size_alone_only_a_short_object_is_found_out() {
    let mut place = Place::new(1, 50);
    let s3 = S3::default();
    s3.set(Fault::Truncates);
    let server = s3.serve();
    place.start(&store(&place, &server, "confirm = \"size\""));
    let waiting = wait_for("a failure", || {
        let waiting = place.deliveries(DeliveryState::Waiting);
        (waiting[0].attempts > 0).then_some(waiting)
    });
    let error = waiting[0].error.clone().unwrap();
    assert!(error.contains("bytes instead of"), "{error}");
    s3.set(Fault::None);
    place.wait(DeliveryState::Done, 1);
    let read = s3
        .state()
        .requests
        .iter()
        .filter(|one| *one == "GET object")
        .count();
    assert_eq!(read, 0, "nothing is read back");
}

#[test]
fn a_store_that_hangs_or_disappears_gets_it_later_from_another_process() {
    let mut place = Place::new(1, 50);
    let s3 = S3::default();
    s3.set(Fault::Hang);
    let server = s3.serve();
    let good = place.text("good");
    let with_good = |place: &Place, server: &Server| {
        let mut all = store(place, server, "");
        all.extend(sinks(&format!(
            "[[sink]]\nkind = \"directory\"\npath = \"{good}\"\n"
        )));
        all
    };
    place.start(&with_good(&place, &server));
    let done = place.wait(DeliveryState::Done, 1);
    assert_eq!(done[0].sink, "directory", "the other sink got it");
    drop(server);
    // Killed while it hangs: what was not confirmed is still to be delivered.
    place.stop();
    s3.set(Fault::None);
    let server = s3.serve();
    place.start(&with_good(&place, &server));
    place.wait(DeliveryState::Done, 2);
    assert_eq!(s3.state().objects.len(), 3);
}

#[test]
fn after_the_loss_of_a_catalog_nothing_goes_up_that_is_there() {
    let mut place = Place::new(2, 100);
    let s3 = S3::default();
    let server = s3.serve();
    place.start(&store(&place, &server, ""));
    place.wait(DeliveryState::Done, 2);
    s3.state().objects.remove(&key(&place, 1, "wav"));
    place.forget();
    s3.state().requests.clear();
    place.start(&store(&place, &server, ""));
    let done = place.wait(DeliveryState::Done, 2);
    assert!(done.iter().all(|one| one.result.is_some()));
    let state = s3.state();
    let puts = state
        .requests
        .iter()
        .filter(|one| one.starts_with("PUT object"));
    // Of the recording that lacks one, all three.
    assert_eq!(puts.count(), 3, "{:?}", state.requests);
    assert_eq!(state.objects.len(), 6);
}

#[test]
fn what_is_deleted_while_it_goes_up_does_not_stay_there() {
    let mut place = Place::new(1, 500);
    let s3 = S3::default();
    // The catalog is made before the store can be reached.
    s3.set(Fault::Unavailable(9));
    let server = s3.serve();
    place.start(&store(&place, &server, ""));
    let (catalog, segments) = (place.catalog(), place.path("segments"));
    let id = place.id(0).to_owned();
    s3.before_put(move || {
        delete(&catalog, &segments, &id).unwrap();
    });
    s3.set(Fault::None);
    let done = place.wait(DeliveryState::Done, 1);
    assert_eq!(done[0].result, Some(Default::default()));
    let state = s3.state();
    assert!(state.requests.iter().any(|one| one == "PUT part"));
    assert!(state.objects.is_empty(), "{:?}", state.objects.keys());
}
