//! Classic blobs and the defects of their first decoder.

mod common;

use std::path::Path;

use common::Random;
use trunkline_sn3::{Capture, CaptureFormat, FrameKind};

const NAME: &str = "blob.sn2";

fn frame3(dir: u8, seq: u16, ts: u32, wall: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![dir];
    bytes.extend(seq.to_le_bytes());
    bytes.extend(ts.to_le_bytes());
    bytes.extend(wall.to_le_bytes());
    bytes.extend((payload.len() as u16).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// A two-way call: (bytes, where each frame starts).
fn blob(frames: u16) -> (Vec<u8>, Vec<usize>) {
    let mut random = Random(5);
    let mut bytes = b"SN3".to_vec();
    let mut starts = Vec::new();
    for n in 0..frames {
        for dir in 0..2u8 {
            starts.push(bytes.len());
            let payload: Vec<u8> = (0..160).map(|_| random.next() as u8).collect();
            let wall = u64::from(n) * 20_000_000 + u64::from(dir) * 70_000;
            bytes.extend(frame3(dir, n, u32::from(n) * 160, wall, &payload));
        }
    }
    (bytes, starts)
}

fn open(bytes: Vec<u8>) -> Capture {
    Capture::from_bytes(bytes, Path::new(NAME)).expect("a blob")
}

#[test]
fn the_magic_decides_not_the_name() {
    let (bytes, starts) = blob(100);
    let capture = open(bytes);
    assert_eq!(capture.format(), CaptureFormat::Sn3);
    assert!(capture.format().has_wall() && !capture.format().has_stream());
    assert_eq!(capture.frames().count(), starts.len());
    assert!(capture.damages().is_empty());
    assert_eq!(capture.facts().audio_frames, [100, 100]);
    let second = capture.frames().nth(1).expect("frames");
    assert_eq!(
        (second.side, second.ssrc, second.pt, second.wall_ns),
        (1, None, None, 70_000)
    );
}

#[test]
fn sn1_and_sn2_are_read() {
    let mut sn1 = b"SN1".to_vec();
    let mut sn2 = b"SN2".to_vec();
    for n in 0..50u16 {
        sn1.extend([1, 20, 0]);
        sn1.extend([n as u8; 20]);
        sn2.push(0);
        sn2.extend(n.to_le_bytes());
        sn2.extend((u32::from(n) * 80).to_le_bytes());
        sn2.extend([80, 0]);
        sn2.extend([n as u8; 80]);
    }
    let sn1 = open(sn1);
    assert_eq!(
        (sn1.format(), sn1.frames().count()),
        (CaptureFormat::Sn1, 50)
    );
    assert!(
        sn1.frames()
            .all(|frame| frame.side == 1 && frame.payload.len() == 20)
    );
    let sn2 = open(sn2);
    assert_eq!(
        (sn2.format(), sn2.frames().count()),
        (CaptureFormat::Sn2, 50)
    );
    assert!(
        sn2.frames()
            .enumerate()
            .all(|(n, frame)| usize::from(frame.seq) == n)
    );
    assert!(sn1.damages().is_empty() && sn2.damages().is_empty());
}

#[test]
fn unknown_frames_are_no_damage() {
    let (mut bytes, starts) = blob(50);
    bytes.splice(starts[10]..starts[10], frame3(7, 0, 0, 0, b"foreign"));
    bytes.extend(frame3(200, 1, 2, u64::MAX, &[0; 4000]));
    let capture = open(bytes);
    assert!(capture.damages().is_empty(), "{:?}", capture.damages());
    let foreign = capture
        .frames()
        .filter(|frame| frame.kind == FrameKind::Unknown(7))
        .count();
    assert_eq!((foreign, capture.frames().count()), (1, starts.len() + 2));
}

#[test]
fn a_frame_of_length_0_is_named_and_does_not_end_the_call() {
    let (mut bytes, starts) = blob(50);
    let at = starts[20];
    bytes.splice(at..at, frame3(0, 9, 9, 200_000_000, &[]));
    let capture = open(bytes);
    assert_eq!(capture.frames().count(), starts.len());
    assert_eq!(capture.damages().len(), 1);
    let damage = &capture.damages()[0];
    assert_eq!((damage.offset as usize, damage.length), (at, 17));
    assert!(
        damage.to_string().starts_with(&format!("byte {at}: ")),
        "{damage}"
    );
}

#[test]
fn a_length_above_4000_is_named_and_what_follows_is_read() {
    let (mut bytes, starts) = blob(50);
    let at = starts[30];
    bytes[at + 15..at + 17].copy_from_slice(&60_000u16.to_le_bytes());
    let capture = open(bytes);
    assert_eq!(capture.frames().count(), starts.len() - 1);
    assert_eq!(capture.damages().len(), 1);
    assert_eq!(capture.damages()[0].offset as usize, at);
}

#[test]
fn a_wrong_length_costs_no_other_frame() {
    for wrong in [1u16, 100, 159, 161, 170, 200, 2000] {
        let (mut bytes, starts) = blob(60);
        let at = starts[40];
        bytes[at + 15..at + 17].copy_from_slice(&wrong.to_le_bytes());
        let capture = open(bytes);
        assert_eq!(capture.frames().count(), starts.len(), "length {wrong}");
        assert_eq!(capture.damages()[0].offset as usize, at, "length {wrong}");
        let mended = capture.frames().nth(40).expect("there");
        assert_eq!(mended.payload.len(), 160, "length {wrong}");
    }
}

#[test]
fn a_wrong_capture_time_costs_nothing() {
    for wrong in [3_600_000_000_000u64, 1 << 60, u64::MAX] {
        let (mut bytes, starts) = blob(60);
        let at = starts[40];
        bytes[at + 7..at + 15].copy_from_slice(&wrong.to_le_bytes());
        let capture = open(bytes);
        assert_eq!(capture.frames().count(), starts.len(), "{wrong}");
        assert_eq!(capture.damages()[0].offset as usize, at);
        let mended = capture.frames().nth(40).expect("there");
        assert!(
            mended.wall_ns.abs_diff(400_000_000) < 50_000_000,
            "{}",
            mended.wall_ns
        );
    }
}

#[test]
fn two_blobs_in_one_file_are_both_read() {
    let (first, starts) = blob(300);
    let (second, _) = blob(300);
    let mut bytes = first.clone();
    bytes.extend_from_slice(&second[3..]);
    let capture = open(bytes);
    assert_eq!(capture.frames().count(), 2 * starts.len());
    assert_eq!(
        capture.damages()[0].offset as usize,
        first.len(),
        "but it is said"
    );
}

#[test]
fn cut_frames_and_trailing_bytes_are_named() {
    let (bytes, starts) = blob(20);
    for cut in 4..bytes.len() {
        let capture = open(bytes[..cut].to_vec());
        let whole = starts.iter().filter(|&&start| start + 177 <= cut).count();
        assert_eq!(capture.frames().count(), whole, "cut at {cut}");
        let at_a_boundary = starts.contains(&cut);
        assert_eq!(capture.damages().is_empty(), at_a_boundary, "cut at {cut}");
        if let Some(damage) = capture.damages().first() {
            assert_eq!(damage.offset as usize, starts[whole], "cut at {cut}");
        }
    }
    assert_eq!(open(b"SN3".to_vec()).frames().count(), 0);
}

#[test]
fn holes_of_garbage_are_jumped_over() {
    let (bytes, starts) = blob(100);
    let mut random = Random(17);
    for round in 0..200 {
        let mut broken = bytes.clone();
        let from = starts[50] + random.below(177);
        let length = 1 + random.below(2000);
        let fill = round % 2 == 0;
        for byte in &mut broken[from..from + length] {
            *byte = if fill { 0 } else { random.next() as u8 };
        }
        let capture = open(broken);
        let touched = starts
            .iter()
            .filter(|&&s| s + 177 > from && s < from + length)
            .count();
        let read = capture.frames().filter(|frame| frame.is_audio()).count();
        assert!(
            read + touched + 1 >= starts.len(),
            "round {round}: {read} of {}",
            starts.len()
        );
    }
}

#[test]
fn megabytes_of_garbage_take_no_time() {
    let mut random = Random(23);
    for format in [b"SN1", b"SN2", b"SN3"] {
        let mut bytes = format.to_vec();
        bytes.extend((0..2_000_000).map(|_| random.next() as u8));
        let _ = open(bytes).frames().count();
        let mut zeros = format.to_vec();
        zeros.resize(8_000_000, 0);
        let capture = open(zeros);
        assert_eq!((capture.frames().count(), capture.damages().len()), (0, 1));
        assert_eq!(capture.damages()[0].offset, 3);
    }
}
