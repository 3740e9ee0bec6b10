//! Ctrl-C: SIGINT to the running program. Whatever has its final name is whole, and nothing else
//! stays behind.

mod common;

use common::audio::*;
use common::*;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// Forty minutes of the caller.
fn long_call() -> Vec<u8> {
    let spoken = speech(8_000, 10.0, 0);
    let mut packets = Vec::new();
    for round in 0..240_u64 {
        let mut part = pcmu(0, &spoken, round * 10_000 * MS);
        for (n, packet) in part.iter_mut().enumerate() {
            packet.seq = (round * 500 + n as u64) as u16;
            packet.ts = ((round * 500 + n as u64) * 160) as u32;
        }
        packets.extend(part);
    }
    blob(packets)
}

const SAMPLES: usize = 240 * 80_000;

fn start(arguments: &[&str]) -> Child {
    std::process::Command::new(assert_cmd::cargo::cargo_bin("sn3"))
        .args(arguments)
        .spawn()
        .unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// Waits until `begun` holds, presses Ctrl-C, and waits for the end.
fn interrupt(child: &mut Child, begun: impl Fn() -> bool) -> ExitStatus {
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let process = child.id().to_string();
    // It may be over already.
    let _ = std::process::Command::new("kill")
        .args(["-INT", &process])
        .status();
    child.wait().unwrap()
}

#[test]
fn a_single_conversion_leaves_no_half_file() {
    for format in ["wav", "flac", "opus"] {
        let (directory, file, _) = place(&long_call());
        let out = directory.path().join(format!("call.{format}"));
        let mut child = start(&["wav", &file, "-o", &out.display().to_string()]);
        let others = || {
            let mut names = names_in(directory.path());
            names.retain(|name| name != "call.sn3");
            names
        };
        let status = interrupt(&mut child, || !others().is_empty());
        // It may have been faster than the signal: then the file is whole.
        if !status.success() {
            assert_eq!(status.code(), Some(1), "{format}");
            assert_eq!(others(), Vec::<String>::new());
        } else if format == "wav" {
            assert_eq!(wav(&out).0.len(), SAMPLES);
        }
    }
}

#[test]
fn an_export_and_a_pcap_leave_no_half_file() {
    let (directory, file, _) = place(&long_call());
    for (command, name) in [("export", "out.sn3"), ("pcap", "out.pcapng")] {
        let out = directory.path().join(name).display().to_string();
        let mut child = start(&[command, &file, "-o", &out]);
        let begun = || names_in(directory.path()).len() > 1;
        let status = interrupt(&mut child, begun);
        if status.success() {
            let check: &[&str] = if command == "pcap" {
                &["import", &out, "-o", "-"]
            } else {
                &["verify", &out]
            };
            sn3(check).code(0);
            std::fs::remove_file(&out).unwrap();
        }
        assert_eq!(names_in(directory.path()), ["call.sn3"], "{command}");
    }
}

#[test]
fn a_batch_leaves_whole_files_only() {
    let (directory, file, _) = place(&long_call());
    for n in 0..12 {
        let link = directory.path().join(format!("in/call-{n:02}.sn3"));
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::fs::hard_link(&file, link).unwrap();
    }
    let (input, out) = (directory.path().join("in"), directory.path().join("out"));
    let (input, all) = (input.display().to_string(), format!("{}/", out.display()));
    let mut child = start(&["wav", &input, "-o", &all, "--jobs", "2"]);
    // Two are under way, and at least one is done.
    let done = || names_in(&out).iter().any(|name| !name.starts_with('.'));
    let status = interrupt(&mut child, done);
    let names = names_in(&out);
    assert!(!names.is_empty());
    for name in &names {
        assert!(!name.ends_with(".part"), "{name}");
        assert_eq!(wav(&out.join(name)).0.len(), SAMPLES, "{name}");
    }
    if !status.success() {
        assert_eq!(status.code(), Some(1));
        assert!(names.len() < 12);
    }
}
