//! Runs every example of docs/convert.md.

#[path = "../../../dataplane/audio/tests/support/mod.rs"]
mod audio;
#[path = "../../../dataplane/sn3/tests/common/mod.rs"]
mod segments;

use audio::*;
use std::path::Path;

#[test]
fn the_examples_of_the_documentation_work() {
    let directory = tempfile::tempdir().unwrap();
    let mut packets = pcmu(0, &speech(8_000, 3.0, 0), 0);
    packets.extend(pcmu(1, &speech(8_000, 3.0, 1), 0));
    let call = Call::new(500 * MS, 3_000 * MS, packets).bytes();
    std::fs::write(directory.path().join("call.sn3"), &call).unwrap();
    let capture = trunkline_sn3::Capture::from_bytes(call, Path::new("call")).unwrap();
    let items = segments::read_items(&capture);
    let disk = trunkline_sn3::sim::SimDisk::new();
    let recordings = [(7, items.clone()), (8, items)];
    segments::one_segment(&disk, &recordings)
        .writer
        .finish(9)
        .unwrap();
    disk.save(directory.path()).unwrap();

    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/convert.md");
    let page = std::fs::read_to_string(page).unwrap();
    let examples: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("    sn3 "))
        .collect();
    assert!(examples.len() >= 10, "{}", examples.len());
    for example in examples {
        let arguments: Vec<&str> = example.split_whitespace().collect();
        assert_cmd::Command::cargo_bin("sn3")
            .unwrap()
            .args(&arguments)
            .current_dir(directory.path())
            .assert()
            .code(0);
        if let Some(at) = arguments.iter().position(|argument| *argument == "-o") {
            let output = directory.path().join(arguments[at + 1]);
            if output.is_dir() {
                continue;
            }
            assert!(output.metadata().unwrap().len() > 1_000, "{example}");
        }
    }
    let samples = |name: &str| {
        let reader = hound::WavReader::open(directory.path().join(name)).unwrap();
        (
            reader.spec().channels,
            reader.spec().sample_rate,
            reader.duration(),
        )
    };
    assert_eq!(samples("call.wav"), (2, 8_000, 20_000));
    assert_eq!(samples("seven.wav"), (2, 8_000, 20_000));
    assert_eq!(samples("whole.wav"), (2, 8_000, 24_000));
    assert_eq!(samples("part.wav"), (1, 8_000, 12_000));
    assert_eq!(samples("wide.wav"), (2, 16_000, 40_000));
}
