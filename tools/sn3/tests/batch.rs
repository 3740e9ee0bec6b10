//! Whole directories at once.

mod common;

use common::audio::*;
use common::*;

#[test]
fn a_directory_is_converted_at_once_and_a_query_chooses() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    std::fs::create_dir_all(place.join("in/below")).unwrap();
    let (left, right, bytes) = two_way();
    for n in 0..12 {
        std::fs::write(place.join(format!("in/call-{n}.sn3")), &bytes).unwrap();
    }
    std::fs::write(place.join("in/below/old.sn2"), &bytes).unwrap();
    std::fs::write(place.join("in/readme.txt"), "not a capture").unwrap();
    let mut call = Call::new(0, 3_000 * MS, pcmu(0, &speech(8_000, 3.0, 0), 0));
    call.open.caller = "+4930123".to_owned();
    std::fs::write(place.join("in/known.sn3"), call.bytes()).unwrap();
    let (input, out) = (place.join("in"), place.join("out"));
    let (input, all) = (input.display().to_string(), format!("{}/", out.display()));
    let said = sn3(&["wav", &input, "-o", &all, "--jobs", "3", "--json"]).code(0);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("14 converted, 0 of them damaged"),
        "{message}"
    );
    let list: serde_json::Value = serde_json::from_slice(&said.get_output().stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 14);
    assert_eq!(wav(&out.join("call-7.wav")), (left.clone(), right.clone()));
    assert_eq!(wav(&out.join("below_old.sn2.wav")), (left, right));

    let chosen = format!("{}/", place.join("chosen").display());
    let query = [
        "wav",
        &input,
        "-o",
        &chosen,
        "--where",
        "party=+4930",
        "--format",
        "flac",
    ];
    sn3(&query).code(0);
    let files: Vec<_> = std::fs::read_dir(&chosen).unwrap().collect();
    assert_eq!(files.len(), 1);
    assert!(place.join("chosen/known.flac").exists());
    sn3(&["wav", &input, "-o", &chosen, "--where", "colour=red"]).code(2);

    // One that is cut does not stop the others, and is named.
    std::fs::write(place.join("in/cut.sn3"), &bytes[..bytes.len() - 50]).unwrap();
    let said = sn3(&["wav", &input, "-o", &all]).code(1);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("15 converted, 1 of them damaged"),
        "{message}"
    );
    assert!(message.contains("cut.sn3: damaged at byte"), "{message}");
}

#[test]
fn every_recording_of_a_directory_of_segments_comes_out_under_a_name_of_its_own() {
    let voices = [0, 1, 2].map(|voice| speech(8_000, 3.0, voice));
    let calls = voices.each_ref().map(|voice| {
        let mut call = Call::new(0, 3_000 * MS, pcmu(0, voice, 0));
        call.open.recording_id = format!("id-{}", voice[9_000]);
        call
    });
    let disk = trunkline_sn3::sim::SimDisk::new();
    let numbered = [7, 8, 9].map(|number| (number, items(&calls[number as usize - 7])));
    segments::one_segment(&disk, &numbered)
        .writer
        .finish(9)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (input, below) = (place.join("in"), place.join("in/below"));
    std::fs::create_dir_all(&below).unwrap();
    // The same recordings again below, and one of them exported beside its segment.
    disk.save(&input).unwrap();
    disk.save(&below).unwrap();
    let ids = calls.each_ref().map(|call| call.open.recording_id.as_str());
    std::fs::write(input.join(format!("{}.sn3", ids[0])), calls[0].bytes()).unwrap();
    let (input, out) = (input.display().to_string(), place.join("out"));
    let all = format!("{}/", out.display());
    let said = sn3(&["wav", &input, "-o", &all]).code(0);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("7 converted, 0 of them damaged"),
        "{message}"
    );
    let heard = |name: String| wav(&out.join(name)).0;
    for (id, voice) in ids.iter().zip(&voices) {
        let wanted = through_mu_law(voice);
        assert_eq!(heard(format!("{id}.wav")), wanted);
        assert_eq!(heard(format!("below_{id}.wav")), wanted);
    }
    assert_eq!(
        heard(format!("{}-2.wav", ids[0])),
        through_mu_law(&voices[0])
    );

    // Damage costs the recording it is in, and is named; the others come out as before.
    let segment = place.join("in/w0-00000001.sn3s");
    let mut bytes = std::fs::read(&segment).unwrap();
    let reader = trunkline_sn3::SegmentReader::open(&segment).unwrap();
    let entries = reader.index().0;
    let of_8 = entries.iter().find(|entry| entry.recording == 8).unwrap();
    let at = of_8.page as usize * 4_096 + 2_000;
    bytes[at] ^= 1;
    drop(reader);
    std::fs::write(&segment, bytes).unwrap();
    std::fs::remove_dir_all(&below).unwrap();
    let said = sn3(&["wav", &input, "-o", &all]).code(1);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("4 converted, 1 of them damaged") && message.contains("recording 8"),
        "{message}"
    );
    assert_eq!(heard(format!("{}.wav", ids[2])), through_mu_law(&voices[2]));
}

#[test]
fn a_capture_is_never_overwritten_by_the_sound_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let (left, _, bytes) = two_way();
    // A blob that calls itself a WAV, just where the sound of the other one would go.
    std::fs::write(directory.path().join("a.sn3"), &bytes).unwrap();
    std::fs::write(directory.path().join("a.wav"), &bytes).unwrap();
    let name = directory.path().display().to_string();
    let said = sn3(&["wav", &name, "-o", &name]).code(1);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("1 converted") && message.contains("is a capture"),
        "{message}"
    );
    assert_eq!(
        std::fs::read(directory.path().join("a.wav")).unwrap(),
        bytes
    );
    assert_eq!(wav(&directory.path().join("a.wav.wav")).0, left);
}

#[test]
fn what_cannot_be_looked_at_does_not_stop_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let (left, right, bytes) = two_way();
    std::fs::write(directory.path().join("a.sn3"), &bytes).unwrap();
    std::fs::write(directory.path().join("w0-00000001.sn3s"), "no segment").unwrap();
    std::os::unix::fs::symlink("a.sn3", directory.path().join("link")).unwrap();
    std::os::unix::fs::symlink(".", directory.path().join("loop")).unwrap();
    let name = directory.path().display().to_string();
    let said = sn3(&["wav", &name, "-o", &format!("{name}/out/")]).code(1);
    let message = text(&said.get_output().stderr);
    assert!(
        message.contains("2 converted") && message.contains("w0-00000001.sn3s"),
        "{message}"
    );
    let out = directory.path().join("out");
    assert_eq!(wav(&out.join("a.wav")), (left.clone(), right.clone()));
    assert_eq!(wav(&out.join("link.wav")), (left, right));
}
