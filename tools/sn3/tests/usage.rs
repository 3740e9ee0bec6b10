//! Mistakes that users make: each is told in a sentence, with the exit code it deserves.

mod common;

use common::*;
use std::path::Path;

/// Runs in a directory; the exit code and what was said.
fn run(place: &Path, arguments: &str) -> (i32, String) {
    let output = assert_cmd::Command::cargo_bin("sn3")
        .unwrap()
        .args(arguments.split(' '))
        .current_dir(place)
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(!said.contains("panicked"), "{arguments}: {said}");
    (output.status.code().unwrap(), said)
}

#[test]
fn arguments_that_cannot_be_meant_are_wrong_usage() {
    let (directory, _, _) = place(&two_way().2);
    let here = directory.path();
    for (arguments, why) in [
        ("wav call.sn3 -o out.wav --from 2 --to 1", "not before"),
        ("wav call.sn3 -o out.wav --from 1 --to 1", "not before"),
        ("plot call.sn3 -o out.png --from 2 --to 1", "not before"),
        ("wav call.sn3 -o out.wav --from -1", "-1"),
        ("wav call.sn3 -o out.wav --from soon", "not a time"),
        ("wav call.sn3 -o out.wav --rate 4000000000", "4000000000"),
        ("wav call.sn3 -o out.wav --rate 0", "--rate"),
        ("wav call.sn3 -o out.wav --bitrate 24000", "Ogg Opus"),
        ("wav call.sn3 -o out.wav --jobs 0", "--jobs"),
        ("wav call.sn3 -o out.wav --jobs 2", "directory"),
        ("wav call.sn3 -o out.wav --where party=1", "directory"),
        (
            "wav call.sn3 -o out.wav --mono --channels parties",
            "cannot be used",
        ),
        ("wav call.sn3 -o out.wav --codec iLBC", "not supported"),
        ("plot call.sn3 -o out.png --width 5", "--width"),
        (
            "import call.sn3 -o out.sn3 --caller nowhere",
            "address:port",
        ),
        (
            "import call.sn3 -o out.sn3 --rtpmap 200=PCMU/8000",
            "payload type",
        ),
    ] {
        let (code, said) = run(here, arguments);
        assert_eq!(code, 2, "{arguments}: {said}");
        assert!(said.contains(why), "{arguments}: {said}");
    }
    assert_eq!(
        std::fs::read_dir(here).unwrap().count(),
        1,
        "nothing is written"
    );
}

#[test]
fn the_input_and_other_captures_are_never_overwritten() {
    let (directory, file, _) = place(&two_way().2);
    let here = directory.path();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(here.join("other.sn3"), &bytes).unwrap();
    std::os::unix::fs::symlink("call.sn3", here.join("link")).unwrap();
    std::fs::hard_link(&file, here.join("hard")).unwrap();
    assert_eq!(run(here, "pcap call.sn3 -o call.pcap").0, 0);
    let packets = std::fs::read(here.join("call.pcap")).unwrap();
    for (arguments, why) in [
        ("wav call.sn3 -o call.sn3", "is a capture"),
        ("wav call.sn3 -o ./link", "is a capture"),
        ("wav call.sn3 -o other.sn3", "is a capture"),
        ("plot call.sn3 -o other.sn3", "is a capture"),
        ("pcap call.sn3 -o other.sn3", "is a capture"),
        ("export call.sn3 -o call.sn3", "the output is the input"),
        ("export call.sn3 -o link", "the output is the input"),
        ("export call.sn3 -o hard", "the output is the input"),
        ("import call.pcap -o call.pcap", "the output is the input"),
    ] {
        let (code, said) = run(here, arguments);
        assert_eq!(code, 2, "{arguments}: {said}");
        assert!(said.contains(why), "{arguments}: {said}");
    }
    for name in ["call.sn3", "other.sn3"] {
        assert_eq!(std::fs::read(here.join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(std::fs::read(here.join("call.pcap")).unwrap(), packets);
    // What is no capture is replaced.
    std::fs::write(here.join("out.wav"), "old").unwrap();
    assert_eq!(run(here, "wav call.sn3 -o out.wav").0, 0);
    assert_eq!(wav(&here.join("out.wav")).0.len(), 24_000);
}

#[test]
fn what_is_not_there_is_told_once() {
    let (directory, _, _) = place(&two_way().2);
    let here = directory.path();
    std::fs::create_dir(here.join("empty")).unwrap();
    std::fs::write(here.join("nothing.sn3"), "").unwrap();
    for (arguments, why) in [
        ("info missing.sn3", "No such file"),
        ("wav missing.sn3 -o out.wav", "No such file"),
        ("pcap missing.sn3 -o out.pcap", "No such file"),
        ("verify missing.sn3", "No such file"),
        ("export missing.sn3 -o out.sn3", "No such file"),
        ("plot missing.sn3 -o out.png", "No such file"),
        ("import missing.pcap -o out.sn3", "No such file"),
        ("info nothing.sn3", "byte 0"),
        ("wav nothing.sn3 -o out.wav", "byte 0"),
        ("verify nothing.sn3", "byte 0"),
        ("import nothing.sn3 -o out.sn3", "byte 0"),
        ("import call.sn3 -o out.sn3", "neither a pcap nor a pcapng"),
        ("info empty", "no segments"),
        ("wav empty -o out/", "no captures"),
        (
            "wav call.sn3 --recording 9 -o out.wav",
            "not an SN3 segment",
        ),
        ("wav call.sn3 -o out.wav --from 100", "ends before"),
        ("wav call.sn3 -o nowhere/out.wav", "nowhere/out.wav"),
        ("wav call.sn3 -o empty", "empty"),
        ("wav call.sn3 -o /dev/full", "/dev/full"),
        ("info /dev/zero", "neither a file nor a pipe"),
    ] {
        let (code, said) = run(here, arguments);
        assert_eq!(code, 1, "{arguments}: {said}");
        assert!(said.contains(why), "{arguments}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
        assert!(said.matches("No such file").count() <= 1, "{said}");
    }
    let left: Vec<_> = std::fs::read_dir(here).unwrap().collect();
    assert_eq!(left.len(), 3, "no half files: {left:?}");
}

#[test]
fn a_pipe_is_as_good_as_a_file() {
    let (left, right, bytes) = two_way();
    let (directory, _, _) = place(&bytes);
    let here = directory.path();
    let pipe = here.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let feed = |bytes: Vec<u8>| {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::write(pipe, bytes))
    };
    let writer = feed(bytes.clone());
    assert_eq!(run(here, "wav pipe -o out.wav"), (0, String::new()));
    writer.join().unwrap().unwrap();
    assert_eq!(wav(&here.join("out.wav")), (left, right));
    for (arguments, code) in [
        ("info pipe", 0),
        ("verify pipe", 0),
        ("export pipe -o a.sn3", 0),
    ] {
        let writer = feed(bytes.clone());
        assert_eq!(run(here, arguments).0, code, "{arguments}");
        writer.join().unwrap().unwrap();
    }
    // A segment has neighbours and a lock, which a pipe has not.
    let writer = feed([b"SN3S".to_vec(), vec![0; 20_000]].concat());
    let (code, said) = run(here, "info pipe");
    writer.join().unwrap().unwrap();
    assert!(code == 1 && said.contains("has to be a file"), "{said}");
}

#[test]
fn an_export_says_what_it_wrote() {
    let (directory, file, _) = place(&two_way().2);
    let out = directory.path().join("out.sn3");
    let name = out.display().to_string();
    let said = sn3(&["export", &file, "-o", &name, "--json"]).code(0);
    let json: serde_json::Value = serde_json::from_slice(&said.get_output().stdout).unwrap();
    assert_eq!(json["frames"], 300);
    assert_eq!(json["bytes"], out.metadata().unwrap().len());
    assert_eq!(json["output"], name);
    assert_eq!(json["damaged"], false);
    // On the standard output the SN3 stands alone.
    let alone = sn3(&["export", &file, "-o", "-", "--json"]).code(0);
    assert_eq!(alone.get_output().stdout, std::fs::read(&out).unwrap());
}

#[test]
fn a_reader_who_has_seen_enough_is_no_trouble() {
    let (_directory, file, _) = place(&two_way().2);
    let program = assert_cmd::cargo::cargo_bin("sn3").display().to_string();
    for arguments in ["info", "info --json", "verify --json"] {
        let script = format!("'{program}' {arguments} '{file}' | true");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]);
        let said = text(&shell.output().unwrap().stderr);
        assert_eq!(said, "", "{arguments}");
    }
}
