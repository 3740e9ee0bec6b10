//! What tests of the command share.
#![allow(dead_code, reason = "each test binary uses a part")]

#[path = "../../../../dataplane/audio/tests/support/mod.rs"]
pub mod audio;
#[path = "../../../../dataplane/sn3/tests/common/mod.rs"]
pub mod segments;

use assert_cmd::Command;
use audio::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub fn sn3(arguments: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("sn3").unwrap().args(arguments).assert()
}

/// A directory with one file in it.
pub fn place(bytes: &[u8]) -> (TempDir, String, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("call.sn3");
    std::fs::write(&file, bytes).unwrap();
    let out = directory.path().join("call.wav");
    (directory, file.display().to_string(), out)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn wav(path: &Path) -> (Vec<i16>, Vec<i16>) {
    let mut reader = hound::WavReader::open(path).unwrap();
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let channel = |skip| samples.iter().skip(skip).step_by(2).copied().collect();
    (channel(0), channel(1))
}

pub fn two_way() -> (Vec<i16>, Vec<i16>, Vec<u8>) {
    let (caller, callee) = (speech(8_000, 3.0, 0), speech(8_000, 3.0, 1));
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 0));
    (
        through_mu_law(&caller),
        through_mu_law(&callee),
        blob(packets),
    )
}

/// Frames of a call as a worker writes them.
pub fn items(call: &Call) -> Vec<segments::Item> {
    let capture = trunkline_sn3::Capture::from_bytes(call.bytes(), Path::new("call")).unwrap();
    segments::read_items(&capture)
}
