//! Segments on a real file system: past the page cache, through it, and by stores into a mapping.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Item, ORIGIN, call, extents};
use trunkline_sn3::extent::Seal;
use trunkline_sn3::file::{DirectoryStore, DiskFile, Way};
use trunkline_sn3::recover::{Finished, finish_leftovers};
use trunkline_sn3::segment::list;
use trunkline_sn3::verify::verify;
use trunkline_sn3::writer::SegmentWriter;
use trunkline_sn3::{Capture, Keys, SegmentReader};

const WAYS: [Way; 3] = [Way::Direct, Way::Buffered, Way::Mapped];

/// Packets a side of a recording that takes more than one window of a mapping.
const LONG: u16 = 25_000;

fn writer(directory: &Path, way: Way) -> SegmentWriter<DiskFile> {
    let mut store = DirectoryStore::new(directory, way).expect("a directory");
    SegmentWriter::create(&mut store, &ORIGIN).expect("a segment")
}

/// Puts extents into a segment, a checkpoint after each hundred; gives those that were refused.
fn put(
    writer: &mut SegmentWriter<DiskFile>,
    extents: &[(Vec<u8>, u32)],
) -> Result<(), std::io::Error> {
    for (index, (extent, used)) in extents.iter().enumerate() {
        let asked = Seal {
            used: *used,
            ..Seal::default()
        };
        writer.stage(extent, &asked).expect("an extent");
        if !writer.has_room() {
            writer.flush()?;
        }
        if index % 100 == 99 {
            writer.checkpoint(7)?;
        }
    }
    writer.checkpoint(8)
}

fn only_segment(directory: &Path) -> std::path::PathBuf {
    list(directory).expect("listed")[0].1.clone()
}

fn heard(directory: &Path, recording: u64) -> Vec<Item> {
    let capture = Capture::open_in_directory(directory, recording, None).expect("a recording");
    assert!(capture.damages().is_empty(), "{:?}", capture.damages());
    common::read_items(&capture)
}

#[test]
fn all_writers_make_the_same_segment() {
    let items = call(LONG, 5);
    let extents = extents(3, &items);
    let mut made = Vec::new();
    for way in WAYS {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = writer(directory.path(), way);
        put(&mut writer, &extents).expect("written");
        writer.finish(9).expect("finished");
        let path = only_segment(directory.path());
        assert!(verify(&path).expect("a segment").is_whole(), "{way:?}");
        assert!(heard(directory.path(), 3) == items, "{way:?}");
        made.push(std::fs::read(path).expect("read"));
    }
    assert!(made[0].len() > 9 << 20, "more than a window");
    assert!(made[0] == made[1] && made[1] == made[2]);
}

#[test]
fn a_mapped_segment_is_read_while_it_grows_and_is_no_longer_than_what_it_holds() {
    let items = call(LONG, 6);
    let extents = extents(3, &items);
    let (early, late) = extents.split_at(300);
    let directory = tempfile::tempdir().expect("a directory");
    let mut writer = writer(directory.path(), Way::Mapped);
    put(&mut writer, early).expect("written");
    let path = only_segment(directory.path());
    let length = path.metadata().expect("a file").len();
    assert_eq!(
        length,
        writer.length(),
        "nothing is mapped by a reader that is cut later"
    );
    let reader = SegmentReader::open(&path).expect("a segment");
    assert!(reader.is_live());
    let known = reader.index().0.len();
    assert_eq!(known, early.len());
    put(&mut writer, late).expect("written");
    writer.finish(9).expect("finished");
    assert_eq!(reader.hop(true).count(), known + 3, "with its directories");
    assert!(heard(directory.path(), 3) == items);
}

#[test]
fn a_writer_that_dies_leaves_all_that_it_wrote() {
    for way in WAYS {
        let items = call(2_000, 7);
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = writer(directory.path(), way);
        put(&mut writer, &extents(3, &items)).expect("written");
        drop(writer);
        let path = only_segment(directory.path());
        assert!(!verify(&path).expect("a segment").is_whole());
        let results = finish_leftovers(directory.path(), &Keys::none()).expect("listed");
        let recovered =
            matches!(&results[0].1, Ok(Finished::Recovered { lost, .. }) if lost.is_empty());
        assert!(recovered, "{way:?}: {results:?}");
        assert!(verify(&path).expect("a segment").is_whole());
        assert!(heard(directory.path(), 3) == items, "{way:?}");
    }
}

/// A small file system, unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_fills_up_is_an_error_and_what_was_written_stays() {
    for way in WAYS {
        let disk = nix::unistd::geteuid()
            .is_root()
            .then(|| Disk::mount(6))
            .flatten();
        let Some(disk) = disk else {
            eprintln!("SKIPPED: needs root, to mount a small tmpfs");
            return;
        };
        let directory = disk.0.path().join("segments");
        let items = call(LONG, 8);
        let extents = extents(3, &items);
        let mut writer = writer(&directory, way);
        let error = put(&mut writer, &extents).expect_err("full");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::StorageFull,
            "{way:?}: {error}"
        );
        writer.discard_staged();
        writer.finish(9).expect("room for the end was kept");
        let read = heard(&directory, 3);
        assert!(
            read.len() > 20_000 && read[..] == items[..read.len()],
            "{way:?}: {}",
            read.len()
        );
        let path = only_segment(&directory);
        assert!(verify(&path).expect("a segment").is_whole());
    }
}
