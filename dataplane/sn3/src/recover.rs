//! After a crash: finishes segments without a footer, and rescues extents from a dead process's pool.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::chain::{self, Follower, Link};
use crate::cipher;
use crate::extent::{ExtentHeader, Seal, checksum, extent_flags, good_until, seal};
use crate::file::{DirectoryStore, DiskFile, SegmentFile};
use crate::hashing::{Hashed, Hashing};
use crate::keys::{KeyWriter, Keys};
use crate::layout::{EXTENT_HEADER, EXTENT_UNITS_MAX, UNIT, VERSION};
use crate::map::Bytes;
use crate::reader::{Found, SegmentReader, directory_entries};
use crate::segment::{DirectoryEntry, SegmentFooter, SegmentHeader, list, segment_flags};
use crate::writer::{Leftover, SegmentOrigin, SegmentWriter, count_in};

/// What finishing a leftover segment came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It has a footer, or another process writes it: nothing was done.
    Whole,
    /// It held nothing and was removed.
    Removed,
    /// It has a footer now.
    Recovered {
        /// Extents kept.
        extents: u32,
        /// Bytes that were torn by the crash and are marked as lost, in order of their offset.
        lost: Vec<(u64, u64)>,
    },
}

/// Finishes all leftover segments of a directory; `keys` decrypt torn extents. Errors of single files do not keep it from the others.
///
/// # Errors
/// Those of reading the directory.
pub fn finish_leftovers(
    directory: &Path,
    keys: &Keys,
) -> io::Result<Vec<(PathBuf, io::Result<Finished>)>> {
    let mut results = Vec::new();
    for (_, path) in list(directory)? {
        let result = finish_leftover(&path, keys);
        if !matches!(result, Ok(Finished::Whole)) {
            results.push((path, result));
        }
    }
    Ok(results)
}

/// Finishes one segment that a crash left without a footer: torn extents are cut back to their good
/// frames, what else is torn is marked as lost, and directory and footer are written.
///
/// # Errors
/// Those of the disk; `InvalidData` when the first unit is damaged too.
pub fn finish_leftover(path: &Path, keys: &Keys) -> io::Result<Finished> {
    let mut file = match reopen_locked(path) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Finished::Whole),
        other => other?,
    };
    let length = path.metadata()?.len();
    if length <= UNIT as u64 {
        std::fs::remove_file(path)?;
        return Ok(Finished::Removed);
    }
    // Not `open`: our own lock would make it look like a segment in the making.
    let mut bytes = Bytes::open(path)?;
    bytes.read_through();
    let reader = SegmentReader::over(bytes, path).map_err(io::Error::other)?;
    if reader.footer().is_some() {
        return Ok(Finished::Whole);
    }
    let Some(header) = reader.header().copied() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the first unit is damaged",
        ));
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let (state, repairs, lost) = survey(&reader, &header, directory, keys);
    drop(reader);
    if state.totals.extents == 0 {
        std::fs::remove_file(path)?;
        return Ok(Finished::Removed);
    }
    for (page, bytes) in &repairs {
        write_all(&mut file, bytes, u64::from(*page) * UNIT as u64)?;
    }
    let now_ns = state.totals.last_ns;
    let mut writer = SegmentWriter::resume(file, header, state);
    let footer = writer.finish(now_ns)?;
    Ok(Finished::Recovered {
        extents: footer.extents,
        lost,
    })
}

/// Takes the file's lock while nobody creates segments: one just created is locked by its writer then.
fn reopen_locked(path: &Path) -> io::Result<DiskFile> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let turn = File::open(directory.unwrap_or(Path::new(".")))?;
    turn.lock()?;
    DiskFile::reopen(path)
}

type Repairs = Vec<(u32, Vec<u8>)>;

/// Units that are no whole extent, and what is good of them, sealed again.
struct Damaged {
    page: u32,
    units: u32,
    kept: Option<(ExtentHeader, Vec<u8>)>,
}

/// What is in an unfinished segment.
struct Surveyed {
    /// Whole extents, directories left out.
    entries: Vec<(u32, ExtentHeader)>,
    /// Pages that a directory lists.
    listed: HashSet<u32>,
    damaged: Vec<Damaged>,
    hashed: Hashed,
}

/// Looks at every extent, while one thread reads ahead of it and others hash behind it.
fn look(reader: &SegmentReader, directory: &Path, keys: &Keys, state: &mut Leftover) -> Surveyed {
    let (mut entries, mut damaged) = (Vec::new(), Vec::new());
    let mut listed = HashSet::new();
    let hashed = std::thread::scope(|scope| {
        scope.spawn(|| reader.read_ahead());
        let mut hashing = Hashing::start(scope, reader);
        for found in reader.hop(true) {
            match &found {
                Found::Extent(view) if view.header.has(extent_flags::DIRECTORY) => {
                    state.directory_page = view.page;
                    state.directories += 1;
                    listed.extend(directory_entries(view).map(|entry| entry.page));
                    state.next_page = view.page + u32::from(view.header.units);
                }
                Found::Extent(view) => {
                    hashing.take(view);
                    entries.push((view.page, view.header));
                    state.next_page = view.page + u32::from(view.header.units);
                }
                Found::Damaged {
                    offset,
                    length,
                    extent,
                    ..
                } => {
                    let kept = extent
                        .as_ref()
                        .and_then(|view| cut_back(view.bytes, directory, keys));
                    damaged.push(Damaged {
                        page: (offset / UNIT as u64) as u32,
                        units: (length / UNIT as u64) as u32,
                        kept,
                    });
                }
            }
        }
        hashing.finish()
    });
    Surveyed {
        entries,
        listed,
        damaged,
        hashed,
    }
}

/// Looks at every extent of an unfinished segment and decides what to write over torn ones.
fn survey(
    reader: &SegmentReader,
    header: &SegmentHeader,
    directory: &Path,
    keys: &Keys,
) -> (Leftover, Repairs, Vec<(u64, u64)>) {
    let mut state = Leftover {
        next_page: 1,
        length: reader.length(),
        totals: SegmentFooter {
            number: header.number,
            worker: header.worker,
            flags: header.flags | segment_flags::RECOVERED,
            ..SegmentFooter::default()
        },
        ..Leftover::default()
    };
    let Surveyed {
        mut entries,
        listed,
        damaged,
        hashed,
    } = look(reader, directory, keys, &mut state);
    let mut repairs = Repairs::new();
    let mut lost = Vec::new();
    let end_of_kept = |damaged: &Damaged| {
        let (header, _) = damaged.kept.as_ref()?;
        Some(damaged.page + u32::from(header.units))
    };
    let last_kept = damaged.iter().filter_map(end_of_kept).max();
    state.next_page = state.next_page.max(last_kept.unwrap_or(0));
    for Damaged { page, units, kept } in damaged {
        let mut at = page;
        if let Some((header, bytes)) = kept {
            at += u32::from(header.units);
            entries.push((page, header));
            repairs.push((page, bytes));
        }
        // What is torn behind everything that is kept will be written over.
        let end = (page + units).min(state.next_page);
        if at < end {
            lost.push((
                u64::from(at) * UNIT as u64,
                u64::from(end - at) * UNIT as u64,
            ));
            repairs.extend(lost_extents(at, end));
        }
    }
    entries.sort_by_key(|(page, _)| *page);
    rechain(reader, directory, &mut entries, &mut repairs, &hashed);
    for (page, header) in entries {
        count_in(&mut state.totals, &header);
        if !listed.contains(&page) {
            state.unlisted.push(DirectoryEntry::of(page, &header));
        }
    }
    (state, repairs, lost)
}

/// Chains extents again: what follows one that was cut back or lost has a link that was made for
/// something else. Such an extent is marked as recovered, and a head that was told before no longer
/// fits: what was behind it is not what was written.
fn rechain(
    reader: &SegmentReader,
    directory: &Path,
    entries: &mut [(u32, ExtentHeader)],
    repairs: &mut Repairs,
    hashed: &Hashed,
) {
    let mut others = Others::new(directory);
    let mut links = HashMap::<u32, Link>::new();
    let mut chains = Follower::default();
    for (page, header) in entries {
        let known = hashed.get(page);
        let repaired = repairs.iter_mut().find(|(repaired, _)| repaired == page);
        let bytes = match &repaired {
            Some((_, bytes)) => bytes.as_slice(),
            None => reader.raw(*page, header.bytes()),
        };
        let mut link = chain::stored(bytes, header);
        let before = || match (header.prev_segment, header.prev_page) {
            (segment, page) if segment == reader.number() => links.get(&page).copied(),
            (segment, page) => others.link_of(segment, page),
        };
        if let Some(previous) = chains.previous(header, before)
            && link.is_some_and(|link| match known {
                Some((before, own)) if *before == previous && repaired.is_none() => *own != link,
                _ => chain::link(&previous, bytes) != link,
            })
        {
            let mut relinked = bytes.to_vec();
            header.flags |= extent_flags::RECOVERED;
            relinked[..EXTENT_HEADER].copy_from_slice(&header.encode());
            link = Some(chain::relink(&mut relinked, header, &previous));
            match repaired {
                Some((_, bytes)) => *bytes = relinked,
                None => repairs.push((*page, relinked)),
            }
        }
        chains.note(header, link);
        links.extend(link.map(|link| (*page, link)));
    }
}

/// The segments beside one, opened as they are asked for.
struct Others<'a> {
    directory: &'a Path,
    listed: Option<Vec<(u32, PathBuf)>>,
    opened: HashMap<u32, Option<SegmentReader>>,
}

impl<'a> Others<'a> {
    fn new(directory: &'a Path) -> Self {
        Self {
            directory,
            listed: None,
            opened: HashMap::new(),
        }
    }

    /// See [`link_of`].
    fn link_of(&mut self, segment: u32, page: u32) -> Option<Link> {
        let listed = self
            .listed
            .get_or_insert_with(|| list(self.directory).unwrap_or_default());
        let open = || {
            let (_, path) = listed.iter().find(|(number, _)| *number == segment)?;
            SegmentReader::open(path).ok()
        };
        let reader = self.opened.entry(segment).or_insert_with(open);
        reader.as_ref()?.link_at(page)
    }
}

/// The link of the extent at a place in a directory of segments; `None` when it cannot be read or has
/// none.
#[must_use]
pub fn link_of(directory: &Path, segment: u32, page: u32) -> Option<Link> {
    Others::new(directory).link_of(segment, page)
}

/// Seals again what is good of a torn extent. Its link is made anew afterwards.
fn cut_back(bytes: &[u8], directory: &Path, keys: &Keys) -> Option<(ExtentHeader, Vec<u8>)> {
    let header = ExtentHeader::decode(bytes)?;
    let mut key = None;
    let mut clear = Vec::new();
    if cipher::is_encrypted(&header) {
        let found = keys.find(directory, header.recording).ok()??;
        clear = found.decrypt_damaged(bytes, &header);
        // Never the old nonce for other bytes.
        key = Some((found, u64::from_le_bytes(cipher::random().ok()?)));
    }
    let bytes = if key.is_some() {
        clear.as_slice()
    } else {
        bytes
    };
    let used = good_until(bytes, &header);
    if used as usize == EXTENT_HEADER {
        return None;
    }
    let chained = header.has(extent_flags::CHAINED);
    let asked = Seal {
        used,
        prev_segment: header.prev_segment,
        prev_page: header.prev_page,
        dropped: header.dropped,
        flags: extent_flags::RECOVERED,
        previous_link: chained.then_some(chain::START),
        encryption: key.as_ref().map(|(key, nonce)| (key, *nonce)),
    };
    let mut extent = bytes[..asked.bytes().min(bytes.len())].to_vec();
    extent.resize(asked.bytes(), 0);
    reopen_header(&mut extent, &header);
    let header = seal(&mut extent, &asked)?;
    extent.truncate(header.bytes());
    Some((header, extent))
}

fn reopen_header(extent: &mut [u8], header: &ExtentHeader) {
    let units = (extent.len() / UNIT) as u8;
    let open = ExtentHeader {
        flags: 0,
        units,
        used: EXTENT_HEADER as u32,
        ..*header
    };
    extent[..EXTENT_HEADER].copy_from_slice(&open.encode());
}

/// Extents of no recording that say that nothing is left between two pages.
fn lost_extents(from: u32, to: u32) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let step = u32::from(EXTENT_UNITS_MAX);
    (from..to)
        .step_by(step as usize)
        .map(move |page| (page, lost_extent((to - page).min(step) as u8)))
}

/// One of them. Neither directories nor footers count it.
pub(crate) fn lost_extent(units: u8) -> Vec<u8> {
    erased_extent(&ExtentHeader {
        units,
        version: VERSION,
        ..ExtentHeader::default()
    })
}

/// The bytes of an erased extent: its header, then zeros.
pub(crate) fn erased_extent(header: &ExtentHeader) -> Vec<u8> {
    let mut header = ExtentHeader {
        flags: header.flags | extent_flags::ERASED | extent_flags::SEALED,
        used: EXTENT_HEADER as u32,
        checksum: 0,
        frames: 0,
        span_us: 0,
        ..*header
    };
    header.checksum = checksum(&header.encode());
    let mut bytes = vec![0u8; header.bytes()];
    bytes[..EXTENT_HEADER].copy_from_slice(&header.encode());
    bytes
}

fn write_all(file: &mut impl SegmentFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// An extent in the memory of a dead process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Worker that filled it.
    pub worker: u16,
    /// Its published bytes, from the header on.
    pub bytes: Vec<u8>,
}

/// How what is rescued is written.
#[derive(Debug, Clone, Default)]
pub struct Rescue {
    /// Tells the new segments' run apart, see [`SegmentHeader::epoch`].
    pub epoch: u64,
    /// Both clocks now.
    pub clock: crate::record::ClockTriple,
    /// They go on with their recordings' hash chains.
    pub chained: bool,
    /// They are encrypted, where there is a master key.
    pub keys: Keys,
}

/// A rescued extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rescued {
    /// Recording.
    pub recording: u64,
    /// Ordinal.
    pub ordinal: u32,
    /// Where it is now.
    pub segment: u32,
    /// See `segment`.
    pub page: u32,
    /// Its frames.
    pub frames: u32,
    /// Its bytes in use.
    pub used: u32,
}

/// Writes what a dead process had captured and not written into new segments of its workers' series.
///
/// Each image is taken frame by frame to the first bad checksum. Extents that are on disk already
/// are left out. The result is ordered by recording and ordinal.
///
/// # Errors
/// Those of the disk.
pub fn rescue(directory: &Path, images: &[Image], how: &Rescue) -> io::Result<Vec<Rescued>> {
    let mut store = DirectoryStore::buffered(directory)?;
    let mut waiting: Vec<(&Image, ExtentHeader, u32)> = images
        .iter()
        .filter_map(|image| {
            let header = ExtentHeader::decode(&image.bytes)?;
            let used = good_until(&image.bytes, &header);
            (used as usize > EXTENT_HEADER && !header.has(extent_flags::SEALED))
                .then_some((image, header, used))
        })
        .collect();
    let mut known = on_disk(directory, &waiting)?;
    waiting.retain(|(_, header, _)| {
        !known
            .get(&header.recording)
            .is_some_and(|have| have.contains_key(&header.ordinal))
    });
    waiting.sort_by_key(|(image, header, _)| (image.worker, header.recording, header.ordinal));
    let mut rescued = Vec::new();
    let mut links = HashMap::<(u32, u32), Link>::new();
    let mut keys = how
        .keys
        .encrypts()
        .then(|| KeyWriter::new(directory, how.keys.clone()));
    for of_worker in waiting.chunk_by(|a, b| a.0.worker == b.0.worker) {
        let origin = SegmentOrigin {
            worker: of_worker[0].0.worker,
            epoch: how.epoch,
            clock: how.clock,
            flags: segment_flags::RESCUED,
            cipher: u8::from(keys.is_some()),
        };
        let mut writer = SegmentWriter::create(&mut store, &origin)?;
        for (image, header, used) in of_worker {
            let have = known.entry(header.recording).or_default();
            let before = have
                .range(..header.ordinal)
                .next_back()
                .map(|(_, place)| *place);
            let (prev_segment, prev_page) = before.unwrap_or((0, 0));
            let key = match &mut keys {
                Some(keys) => {
                    let key = keys.key_of(header.recording, true)?;
                    keys.sync()?;
                    Some((key, u64::from_le_bytes(cipher::random()?)))
                }
                None => None,
            };
            let previous_link = how.chained.then(|| {
                let known = links.get(&(prev_segment, prev_page)).copied();
                let on_disk = || link_of(directory, prev_segment, prev_page);
                known.or_else(on_disk).unwrap_or(chain::START)
            });
            let asked = Seal {
                used: *used,
                prev_segment,
                prev_page,
                flags: extent_flags::RECOVERED,
                previous_link,
                encryption: key.as_ref().map(|(key, nonce)| (key, *nonce)),
                ..Seal::default()
            };
            if !writer.has_room() {
                writer.flush()?;
            }
            let Some(staged) = writer.stage(&image.bytes, &asked) else {
                continue;
            };
            have.insert(header.ordinal, (writer.number(), staged.page));
            let place = (writer.number(), staged.page);
            links.extend(staged.link.map(|link| (place, link)));
            rescued.push(Rescued {
                recording: header.recording,
                ordinal: header.ordinal,
                segment: writer.number(),
                page: staged.page,
                frames: staged.header.frames,
                used: *used,
            });
        }
        writer.finish(how.clock.mono_ns)?;
    }
    rescued.sort_by_key(|one| (one.recording, one.ordinal));
    Ok(rescued)
}

/// Place of each whole extent on disk, by recording and ordinal.
type Places = BTreeMap<u64, BTreeMap<u32, (u32, u32)>>;

/// How long before the oldest image a segment may have ended and still matter.
const RECENT_NS: u64 = 60_000_000_000;

/// Looks through the segments, the newest first. Older ones are left out once every recording that
/// goes on was met.
fn on_disk(directory: &Path, wanted: &[(&Image, ExtentHeader, u32)]) -> io::Result<Places> {
    let mut missing: HashSet<u64> = wanted
        .iter()
        .map(|(_, header, _)| header.recording)
        .collect();
    let recordings = missing.clone();
    missing.retain(|recording| {
        // One that starts with an image has nothing on disk.
        wanted
            .iter()
            .all(|(_, header, _)| header.recording != *recording || header.ordinal != 0)
    });
    let oldest_ns = wanted
        .iter()
        .map(|(_, header, _)| header.first_ns)
        .min()
        .unwrap_or(0);
    let mut places = Places::new();
    if recordings.is_empty() {
        return Ok(places);
    }
    for (number, path) in list(directory)?.into_iter().rev() {
        let Ok(reader) = SegmentReader::open(&path) else {
            continue;
        };
        let old = reader
            .footer()
            .is_some_and(|footer| footer.last_ns + RECENT_NS < oldest_ns);
        if old && missing.is_empty() {
            continue;
        }
        for entry in reader.index().0 {
            if recordings.contains(&entry.recording) && reader.extent_at(entry.page).is_ok() {
                missing.remove(&entry.recording);
                let have = places.entry(entry.recording).or_default();
                have.entry(entry.ordinal).or_insert((number, entry.page));
            }
        }
    }
    Ok(places)
}

/// The end of what is on disk of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastPlace {
    /// Ordinal of the extent to come.
    pub next_ordinal: u32,
    /// Where the last one is.
    pub segment: u32,
    /// See `segment`.
    pub page: u32,
}

/// Where recordings that are to go on have come to: looks through the segments from the newest on,
/// until each was met. A recording with nothing on disk is left out.
///
/// # Errors
/// Those of reading the directory.
pub fn last_places(
    directory: &Path,
    recordings: &BTreeSet<u64>,
) -> io::Result<BTreeMap<u64, LastPlace>> {
    let mut places: BTreeMap<u64, LastPlace> = BTreeMap::new();
    for (number, path) in list(directory)?.into_iter().rev() {
        if recordings
            .iter()
            .all(|recording| places.contains_key(recording))
        {
            break;
        }
        let Ok(reader) = SegmentReader::open(&path) else {
            continue;
        };
        for entry in reader.index().0 {
            let known = places.get(&entry.recording);
            let newer = known.is_none_or(|known| entry.ordinal >= known.next_ordinal);
            // Of a segment older than one that was met, nothing is newer.
            if recordings.contains(&entry.recording)
                && newer
                && known.is_none_or(|known| known.segment == number)
                && reader.extent_at(entry.page).is_ok()
            {
                let next_ordinal = entry.ordinal.saturating_add(1);
                let place = LastPlace {
                    next_ordinal,
                    segment: number,
                    page: entry.page,
                };
                places.insert(entry.recording, place);
            }
        }
    }
    Ok(places)
}
