//! Files in a directory.

use crate::place::{Place, files, sinks, wait_for};
use serde_json::Value;
use sha2::{Digest, Sha256};
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::DeliveryState;
use trunkline_sinks::library::{wav_plan, write_wav_of};
use trunkline_sinks::object::RecordingState;
use trunkline_sn3::{Capture, Keys};

fn directory(place: &Place, more: &str) -> String {
    let path = place.text("out");
    format!("[[sink]]\nkind = \"directory\"\npath = \"{path}\"\n{more}\n")
}

fn sidecar(place: &Place, name: &str) -> Value {
    let text = std::fs::read(place.path("out").join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_recording_is_there_as_sn3_wav_and_description() {
    let mut place = Place::new(2, 50);
    let more = "template = \"{year}/{caller}-{callee}-{recording}\"";
    place.start(&sinks(&directory(&place, more)));
    let done = place.wait(DeliveryState::Done, 2);
    let name = format!("2026/alice-+4930-{}", place.id(0));
    let own: Vec<String> = files(&place.path("out"))
        .into_iter()
        .filter(|file| file.contains(place.id(0)))
        .collect();
    let expected = ["json", "sn3", "wav"].map(|extension| format!("{name}.{extension}"));
    assert_eq!(own, expected);
    assert_eq!(files(&place.path("out/.partial")), Vec::<String>::new());
    let about = sidecar(&place, &name);
    assert_eq!(about["recording"]["id"], place.id(0));
    assert_eq!(about["call"]["caller"], "alice");
    let head = about["recording"]["receipt"]["chain"]["head"].as_str();
    assert_eq!(head.map(str::len), Some(64), "{about}");
    for file in about["files"].as_array().unwrap() {
        let path = place.path("out/2026").join(file["name"].as_str().unwrap());
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(file["bytes"], bytes.len());
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(file["sha256"], hash.as_str());
    }
    let result = done
        .iter()
        .find(|one| one.recording_id.as_deref() == Some(place.id(0)))
        .and_then(|one| one.result.clone())
        .unwrap();
    assert_eq!(result.object_key, Some(name.clone()));
    assert!(result.url.unwrap().ends_with(&format!("/out/{name}")));

    // What was exported sounds like what was captured.
    let stored = place.catalog().recording(place.id(0)).unwrap().unwrap();
    let captured = Capture::open_in_directory_with(
        &place.path("segments"),
        stored.storage.number,
        stored.storage.last(),
        &Keys::none(),
    )
    .unwrap();
    let sn3 = place.path("out").join(format!("{name}.sn3"));
    let exported = Capture::open(&sn3).unwrap();
    assert!(exported.damages().is_empty());
    let sound = std::fs::read(place.path("out").join(format!("{name}.wav"))).unwrap();
    for capture in [&captured, &exported] {
        let mut wav = Vec::new();
        write_wav_of(capture, &wav_plan(capture).unwrap(), &mut wav).unwrap();
        assert_eq!(wav, sound);
    }
}

#[test]
fn a_directory_that_cannot_be_used_holds_up_nobody_and_gets_all_once_it_can() {
    let mut place = Place::new(3, 10);
    std::fs::write(place.path("out"), "in the way").unwrap();
    let good = place.text("good");
    let text = format!(
        "{}[[sink]]\nname = \"good\"\nkind = \"directory\"\npath = \"{good}\"\nformats = [\"wav\"]\n",
        directory(&place, "")
    );
    place.start(&sinks(&text));
    let done = place.wait(DeliveryState::Done, 3);
    assert!(done.iter().all(|one| one.sink == "good"), "{done:?}");
    let waiting = wait_for("failures", || {
        let waiting = place.deliveries(DeliveryState::Waiting);
        waiting
            .iter()
            .all(|one| one.attempts > 0)
            .then_some(waiting)
    });
    assert_eq!(waiting.len(), 3);
    assert!(
        waiting[0].error.as_ref().unwrap().contains("out"),
        "{waiting:?}"
    );
    std::fs::remove_file(place.path("out")).unwrap();
    place.wait(DeliveryState::Done, 6);
    assert_eq!(files(&place.path("out")).len(), 9);
    assert_eq!(files(&place.path("good")).len(), 3);
}

#[test]
fn what_is_deleted_is_deleted_here_too_unless_it_is_to_stay() {
    let mut place = Place::new(2, 10);
    let kept = place.text("kept");
    let text = format!(
        "{}[[sink]]\nname = \"kept\"\nkind = \"directory\"\npath = \"{kept}\"\ndelete = false\n",
        directory(&place, "")
    );
    place.start(&sinks(&text));
    place.wait(DeliveryState::Done, 4);
    // Its name was made by another template than the one of the day of its deletion.
    let other = text.replacen("kind", "template = \"x-{recording}\"\nkind", 1);
    place.start(&sinks(&other));
    let (gone, stays) = (place.id(0).to_owned(), place.id(1).to_owned());
    assert_eq!(place.delete(&gone), Ok(1));
    let left = files(&place.path("out"));
    assert!(left.iter().all(|file| file.contains(&stays)), "{left:?}");
    assert_eq!(left.len(), 3);
    assert_eq!(files(&place.path("kept")).len(), 6);

    // While the directory is away, nobody can say that the files are gone.
    std::fs::rename(place.path("out"), place.path("away")).unwrap();
    let refused = place.delete(&stays).unwrap_err();
    assert!(refused.contains("is not there now"), "{refused}");
    std::fs::rename(place.path("away"), place.path("out")).unwrap();
    let segments = place.path("segments");
    assert_eq!(place.catalog().erase_deleted(&segments).unwrap(), 1);
    assert_eq!(files(&place.path("out")), Vec::<String>::new());
}

#[test]
fn what_was_deleted_before_it_was_delivered_never_gets_there() {
    let mut place = Place::new(1, 10);
    std::fs::write(place.path("out"), "in the way").unwrap();
    place.start(&sinks(&directory(&place, "")));
    wait_for("a failure", || {
        let waiting = place.deliveries(DeliveryState::Waiting);
        (waiting[0].attempts > 0).then_some(())
    });
    place.delete(place.id(0)).unwrap();
    std::fs::remove_file(place.path("out")).unwrap();
    let done = place.wait(DeliveryState::Done, 1);
    assert_eq!(done[0].result, Some(Default::default()));
    assert_eq!(files(&place.path("out")), Vec::<String>::new());
}

#[test]
fn another_tenants_recordings_do_not_go_there() {
    let mut place = Place::new(1, 10);
    place.start(&sinks(&directory(&place, "tenant = \"acme\"")));
    place.wait(DeliveryState::Done, 1);
    assert_eq!(files(&place.path("out")), Vec::<String>::new());
}

#[test]
fn after_the_loss_of_a_catalog_only_what_is_missing_is_made_again() {
    let mut place = Place::new(2, 10);
    let text = directory(&place, "template = \"{recording}\"");
    place.start(&sinks(&text));
    place.wait(DeliveryState::Done, 2);
    let name = |place: &Place, index: usize, end: &str| {
        place.path("out").join(format!("{}.{end}", place.id(index)))
    };
    // One that was put there and marked by hand, and one that is cut.
    let whole = name(&place, 0, "sn3");
    let bytes = std::fs::metadata(&whole).unwrap().len();
    std::fs::write(&whole, vec![7; usize::try_from(bytes).unwrap()]).unwrap();
    std::fs::write(name(&place, 1, "wav"), "cut").unwrap();
    place.forget();
    place.start(&sinks(&text));
    place.wait(DeliveryState::Done, 2);
    assert!(
        std::fs::read(&whole).unwrap().iter().all(|byte| *byte == 7),
        "left alone"
    );
    let wav = std::fs::read(name(&place, 1, "wav")).unwrap();
    assert!(wav.starts_with(b"RIFF"), "made again");
}

#[test]
fn a_recording_that_went_on_is_delivered_anew() {
    let mut place = Place::new(1, 10);
    place.start(&sinks(&directory(&place, "template = \"{recording}\"")));
    let first = place.wait(DeliveryState::Done, 1)[0].id;
    let whole = place.path("out").join(format!("{}.sn3", place.id(0)));
    let bytes = std::fs::metadata(&whole).unwrap().len();
    std::fs::write(&whole, vec![7; usize::try_from(bytes).unwrap()]).unwrap();
    let mut stored = place.catalog().recording(place.id(0)).unwrap().unwrap();
    stored.recording.state = RecordingState::Recording;
    let ended_at = stored.recording.ended_at.take().unwrap();
    let (catalog, storage) = (place.catalog(), stored.storage);
    assert!(catalog.put_recording(stored.recording.clone(), storage));
    assert!(catalog.flush(std::time::Duration::from_secs(60)));
    stored.recording.state = RecordingState::Complete;
    stored.recording.ended_at = Some(Timestamp(ended_at.0 + 5_000));
    assert!(catalog.put_recording(stored.recording, storage));
    let again = wait_for("the second delivery", || {
        let done = place.deliveries(DeliveryState::Done);
        done.into_iter().find(|one| one.id != first)
    });
    assert!(
        again.id > first,
        "what is said of the first is not taken for it"
    );
    let frames = std::fs::read(&whole).unwrap();
    assert!(frames.iter().any(|byte| *byte != 7), "made again");
}

#[test]
fn frames_that_are_away_for_a_while_are_no_empty_recording() {
    let mut place = Place::new(1, 10);
    std::fs::write(place.path("out"), "in the way").unwrap();
    let text = directory(&place, "");
    place.start(&sinks(&text));
    wait_for("a failure", || {
        let waiting = place.deliveries(DeliveryState::Waiting);
        (waiting[0].attempts > 0).then_some(())
    });
    place.stop();
    std::fs::remove_file(place.path("out")).unwrap();
    // A disk that is not mounted yet.
    std::fs::rename(place.path("segments"), place.path("away")).unwrap();
    std::fs::create_dir(place.path("segments")).unwrap();
    place.start(&sinks(&text));
    wait_for("another failure", || {
        let waiting = place.deliveries(DeliveryState::Waiting);
        let error = waiting.first()?.error.clone()?;
        error.contains("its frames are not where").then_some(())
    });
    assert_eq!(files(&place.path("out")), Vec::<String>::new());
    std::fs::remove_dir(place.path("segments")).unwrap();
    std::fs::rename(place.path("away"), place.path("segments")).unwrap();
    place.wait(DeliveryState::Done, 1);
    assert_eq!(files(&place.path("out")).len(), 3);
}
