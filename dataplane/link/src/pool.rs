//! The extent pool: memory that workers capture into, in a memfd that control holds too, so that a
//! killed dataplane's extents can still be read.
//!
//! ```text
//! 0          header page: magic, version, extents, extent bytes, pid, origin of the data
//! 4096       metadata, 64 bytes an extent
//! data       extents, 16 KiB each, from a multiple of 2 MiB on
//! ```
//! Workers fill thousands of extents in turn, so each packet meets other memory. Two things keep that
//! cheap: frames are stored past the caches ([`Filling::stream`]), so that nothing is read from memory
//! first, and extents lie in large pages where the kernel gives any.
//! An extent is an owned token ([`Extent`], neither Copy nor Clone): who holds it may write its bytes.
//! Tokens travel recorder -> worker (ready) -> recorder (full). Readers in control see `published`
//! bytes only: the writer stores `published` with release after the bytes, the reader loads it with
//! acquire before them; published bytes are not written again until the extent's `generation` moves.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

use crate::limits::EXTENT_BYTES;
use crate::shared_map::{LARGE_PAGE_BYTES, SharedMap, SharedPlain, Writers, duplicate};

const PAGE_BYTES: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"TLPOOL02");
/// Extents in a large page.
const LARGE_PAGE_EXTENTS: usize = LARGE_PAGE_BYTES / EXTENT_BYTES;
/// Extents of one pool at most (16 GiB).
pub const EXTENTS_MAX: usize = 1 << 20;

/// Where an extent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ExtentState {
    /// Holds nothing that matters.
    Free = 0,
    /// A worker appends to it.
    Open = 1,
    /// Handed to the recorder; not durable yet.
    Full = 2,
}

/// Header page.
#[repr(C)]
struct PoolHeader {
    magic: AtomicU64,
    extents: AtomicU32,
    extent_bytes: AtomicU32,
    pid: AtomicU32,
    reserved: AtomicU32,
}

/// Metadata of one extent, one cache line.
#[repr(C, align(64))]
struct ExtentLine {
    state: AtomicU32,
    worker: AtomicU32,
    recording: AtomicU64,
    ordinal: AtomicU32,
    published: AtomicU32,
    generation: AtomicU64,
    origin_mono_ns: AtomicU64,
    reserved: [AtomicU64; 3],
}

const _: () = assert!(size_of::<ExtentLine>() == 64);
const _: () = assert!(size_of::<PoolHeader>() == 24);
const _: () = assert!(EXTENT_BYTES.is_multiple_of(PAGE_BYTES));

// SAFETY: repr(C), atomics only.
unsafe impl SharedPlain for PoolHeader {}
// SAFETY: repr(C), atomics only; the size assert shows that there is no padding.
unsafe impl SharedPlain for ExtentLine {}

/// Byte offset of the first extent in a pool of `extents`.
const fn data_offset(extents: usize) -> usize {
    (PAGE_BYTES + extents * size_of::<ExtentLine>()).next_multiple_of(LARGE_PAGE_BYTES)
}

/// The dataplane's pool.
#[derive(Debug)]
pub struct Pool {
    map: SharedMap,
    file: OwnedFd,
    extents: usize,
    /// Large pages that were asked for.
    large: Vec<AtomicBool>,
}

impl Pool {
    /// Creates a pool and all of its tokens. Memory is taken from the kernel as extents are touched
    /// (see [`Extent::prepare`]).
    ///
    /// # Errors
    /// `InvalidInput` for 0 or more than [`EXTENTS_MAX`] extents; those of memfd and mmap.
    pub fn create(extents: usize) -> io::Result<(Arc<Self>, Vec<Extent>)> {
        if extents == 0 || extents > EXTENTS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = data_offset(extents) + extents * EXTENT_BYTES;
        let (map, file) = SharedMap::create("trunkline-extents", bytes, Writers::CreatorOnly)?;
        let header = &map.view::<PoolHeader>(0, 1)[0];
        header
            .extents
            .store(u32::try_from(extents).expect("below the limit"), Relaxed);
        header.extent_bytes.store(EXTENT_BYTES as u32, Relaxed);
        header.pid.store(std::process::id(), Relaxed);
        header.magic.store(MAGIC, Release);
        let pages = extents / LARGE_PAGE_EXTENTS;
        let large = (0..pages).map(|_| AtomicBool::new(false)).collect();
        let pool = Arc::new(Self {
            map,
            file,
            extents,
            large,
        });
        let tokens = (0..extents)
            .map(|index| Extent {
                pool: pool.clone(),
                index: index as u32,
                unpublished: false,
            })
            .collect();
        Ok((pool, tokens))
    }

    /// The file to hand to control.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Number of extents.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.extents
    }

    fn line(&self, index: u32) -> &ExtentLine {
        &self.map.view::<ExtentLine>(PAGE_BYTES, self.extents)[index as usize]
    }
}

/// The right to write one extent. Dropping it takes the extent out of use for good.
#[must_use = "a dropped extent is lost to the pool"]
pub struct Extent {
    pool: Arc<Pool>,
    index: u32,
    /// Of a [`Filling`]: it has bytes that others cannot read yet.
    unpublished: bool,
}

impl fmt::Debug for Extent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Extent({}, {:?})", self.index, self.state())
    }
}

impl Extent {
    /// Its place in the pool.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its bytes, 16 KiB, 4 KiB-aligned.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: in bounds and alive (the pool is held); only a token's `&mut` writes this range,
        // and `&self` excludes that.
        unsafe { std::slice::from_raw_parts(self.start(), EXTENT_BYTES) }
    }

    /// Its bytes, to write.
    #[must_use]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: in bounds and alive; there is one token an extent (made in `Pool::create`, not
        // clonable) and it is borrowed mutably, ranges of tokens are disjoint, and other processes
        // cannot map the file writable (F_SEAL_FUTURE_WRITE).
        unsafe { std::slice::from_raw_parts_mut(self.start(), EXTENT_BYTES) }
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let offset = data_offset(self.pool.extents) + self.index as usize * EXTENT_BYTES;
        // SAFETY: index < extents, and the mapping ends with the last extent.
        unsafe { self.pool.map.as_mut_pointer().add(offset) }
    }

    /// Touches every page, so that the worker's stores do not fault; a large page, where one is to be
    /// had, for it and its neighbours. For cold threads.
    pub fn prepare(&mut self) {
        let page = self.index as usize / LARGE_PAGE_EXTENTS;
        if let Some(asked) = self.pool.large.get(page)
            && !asked.swap(true, Relaxed)
        {
            // There has to be something to make large.
            self.bytes_mut()[0] = 0;
            let offset = data_offset(self.pool.extents) + page * LARGE_PAGE_BYTES;
            // Small pages do as well, at a few nanoseconds a packet.
            let _ = self.pool.map.make_large(offset);
        }
        for page in self.bytes_mut().chunks_exact_mut(PAGE_BYTES) {
            page[0] = 0;
        }
    }

    /// Gives the extent to a recording: nothing published, state open.
    pub fn open(&mut self, worker: u16, recording: u64, ordinal: u32, origin_mono_ns: u64) {
        let line = self.pool.line(self.index);
        line.published.store(0, Relaxed);
        line.generation
            .store(line.generation.load(Relaxed).wrapping_add(1), Relaxed);
        // A reader that sees bytes of the new use also sees the new generation.
        fence(Release);
        line.worker.store(u32::from(worker), Relaxed);
        line.recording.store(recording, Relaxed);
        line.ordinal.store(ordinal, Relaxed);
        line.origin_mono_ns.store(origin_mono_ns, Relaxed);
        line.state.store(ExtentState::Open as u32, Release);
    }

    /// Makes the first `used` bytes readable by others.
    ///
    /// # Panics
    /// When `used` is larger than an extent.
    #[inline]
    pub fn publish(&mut self, used: usize) {
        assert!(used <= EXTENT_BYTES, "published beyond the extent");
        self.pool
            .line(self.index)
            .published
            .store(used as u32, Release);
    }

    /// Bytes published.
    #[must_use]
    #[inline]
    pub fn published(&self) -> usize {
        self.pool.line(self.index).published.load(Relaxed) as usize
    }

    /// The same extent, to be filled by stores past the caches. Its header is there already.
    pub fn fill(self) -> Filling {
        Filling {
            extent: self,
            own_thread: PhantomData,
        }
    }

    /// Marks it as handed to the recorder.
    pub fn set_full(&mut self) {
        self.pool
            .line(self.index)
            .state
            .store(ExtentState::Full as u32, Release);
    }

    /// Marks it as durable or given up: free. What was published stays readable until the next
    /// [`Extent::open`].
    pub fn set_free(&mut self) {
        let line = self.pool.line(self.index);
        line.state.store(ExtentState::Free as u32, Release);
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> ExtentState {
        self.meta().state
    }

    /// What [`Extent::open`] stored, and what is published.
    #[must_use]
    pub fn meta(&self) -> ExtentMeta {
        read_meta(self.pool.line(self.index)).expect("own states are valid")
    }
}

/// Writes past the caches. One for all extents that a thread fills: what was streamed is in no order with
/// other stores before a fence, and one fence does for all.
#[derive(Debug, Default)]
pub struct Streamer {
    own_thread: PhantomData<*const ()>,
}

/// Everything streamed so far comes before what follows, as long as nothing more is streamed.
#[derive(Debug)]
pub struct Fenced<'a> {
    streamer: PhantomData<&'a mut Streamer>,
}

impl Streamer {
    /// Orders what was streamed before what follows.
    #[inline]
    pub fn fence(&mut self) -> Fenced<'_> {
        stream_fence();
        Fenced {
            streamer: PhantomData,
        }
    }
}

/// An extent that frames are streamed into. Stays with its thread, because such stores are in no
/// order with others before a fence.
#[derive(Debug)]
#[must_use = "a dropped extent is lost to the pool"]
pub struct Filling {
    extent: Extent,
    own_thread: PhantomData<*const ()>,
}

impl Filling {
    /// Writes whole words at an offset of whole words; not for anybody to read before
    /// [`Filling::publish`]. What is less than a word at the end is not written.
    ///
    /// # Panics
    /// When they do not fit the extent.
    #[inline]
    pub fn stream(&mut self, _: &mut Streamer, at: usize, bytes: &[u8]) {
        let target = &mut self.extent.bytes_mut()[at..at + bytes.len()];
        assert!(at.is_multiple_of(8), "words are aligned");
        stream_words(target, bytes);
        self.extent.unpublished = true;
    }

    /// Whether it has bytes that others cannot read yet.
    #[inline]
    #[must_use]
    pub fn is_unpublished(&self) -> bool {
        self.extent.unpublished
    }

    /// Makes the first `used` bytes readable by others.
    ///
    /// # Panics
    /// When `used` is larger than an extent.
    #[inline]
    pub fn publish(&mut self, _: &Fenced<'_>, used: usize) {
        self.extent.publish(used);
        self.extent.unpublished = false;
    }

    /// Ends the filling: marks the extent as handed to the recorder.
    pub fn close(mut self) -> Extent {
        stream_fence();
        self.extent.set_full();
        self.extent.unpublished = false;
        self.extent
    }

    /// Fetches what publishing needs.
    #[inline]
    pub fn fetch(&self) {
        let line = self.extent.pool.line(self.extent.index);
        crate::prefetch(std::ptr::from_ref(line).cast());
    }
}

/// Copies whole words without reading the target's cache lines first; two at a time where they are
/// aligned and lie behind what was just written word by word (loads of both would wait for the stores).
#[cfg(target_arch = "x86_64")]
#[inline]
fn stream_words(target: &mut [u8], bytes: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si64, _mm_stream_si128};
    const PAIR: usize = size_of::<__m128i>();
    const SINGLE_BYTES: usize = 32;
    let target = &mut target[..bytes.len()];
    let start = target.as_mut_ptr();
    let paired = start.addr().is_multiple_of(PAIR);
    let singles = if paired { SINGLE_BYTES } else { usize::MAX };
    let singles = singles.min(bytes.len());
    for (index, word) in bytes[..singles].chunks_exact(8).enumerate() {
        let word = i64::from_ne_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]);
        // SAFETY: within the target, which is as aligned as the extent (checked by the caller) and
        // borrowed mutably; a `Filling` gives nobody else access before a fence.
        unsafe { _mm_stream_si64(start.cast::<i64>().add(index), word) };
    }
    let pairs = bytes[singles..].chunks_exact(PAIR);
    let last = pairs.remainder();
    for (index, pair) in pairs.enumerate() {
        // SAFETY: as above, PAIR bytes in both; singles are a multiple of PAIR where pairs follow, so
        // that the target is aligned for them. Every x86-64 has these.
        unsafe {
            let pair = _mm_loadu_si128(pair.as_ptr().cast());
            _mm_stream_si128(start.add(singles).cast::<__m128i>().add(index), pair);
        }
    }
    if let Some(word) = last.first_chunk() {
        let at = bytes.len() / 8 - 1;
        // SAFETY: as for the first words; it is the last whole one.
        unsafe { _mm_stream_si64(start.cast::<i64>().add(at), i64::from_ne_bytes(*word)) };
    }
}

/// Orders streamed words before everything that follows.
#[cfg(target_arch = "x86_64")]
#[inline]
fn stream_fence() {
    // SAFETY: every x86-64 has it.
    unsafe { std::arch::x86_64::_mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn stream_words(target: &mut [u8], bytes: &[u8]) {
    target[..bytes.len()].copy_from_slice(bytes);
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn stream_fence() {}

/// A copy of an extent's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentMeta {
    /// Where it is in its life.
    pub state: ExtentState,
    /// The worker that opened it.
    pub worker: u16,
    /// Recording number (0 = the worker's own log).
    pub recording: u64,
    /// Its place among the recording's extents.
    pub ordinal: u32,
    /// Bytes that may be read.
    pub published: usize,
    /// Counts the uses of this extent.
    pub generation: u64,
    /// CLOCK_MONOTONIC ns of the recording's origin.
    pub origin_mono_ns: u64,
}

fn read_meta(line: &ExtentLine) -> Option<ExtentMeta> {
    let state = match line.state.load(Relaxed) {
        0 => ExtentState::Free,
        1 => ExtentState::Open,
        2 => ExtentState::Full,
        _ => return None,
    };
    let meta = ExtentMeta {
        state,
        worker: u16::try_from(line.worker.load(Relaxed)).ok()?,
        recording: line.recording.load(Relaxed),
        ordinal: line.ordinal.load(Relaxed),
        published: line.published.load(Relaxed) as usize,
        generation: line.generation.load(Relaxed),
        origin_mono_ns: line.origin_mono_ns.load(Relaxed),
    };
    // Pairs with the release stores of `publish` and `open` (a relaxed load and a fence instead of
    // an acquire load, because the reader's memory is read-only).
    fence(Acquire);
    (meta.published <= EXTENT_BYTES).then_some(meta)
}

/// Control's read-only view. Keeps the memory alive beyond the dataplane's death.
#[derive(Debug)]
pub struct PoolReader {
    map: SharedMap,
    file: OwnedFd,
    extents: usize,
}

impl PoolReader {
    /// Maps a received pool file.
    ///
    /// # Errors
    /// `InvalidData` when it is not a pool of this version; those of mmap.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let most = data_offset(EXTENTS_MAX) + EXTENTS_MAX * EXTENT_BYTES;
        let map = SharedMap::open(file.as_fd(), data_offset(1)..=most, false)?;
        let header = &map.view::<PoolHeader>(0, 1)[0];
        let extents = header.extents.load(Relaxed) as usize;
        let valid = header.magic.load(Relaxed) == MAGIC
            && header.extent_bytes.load(Relaxed) as usize == EXTENT_BYTES
            && (1..=EXTENTS_MAX).contains(&extents)
            && map.bytes() == data_offset(extents) + extents * EXTENT_BYTES;
        if !valid {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not an extent pool",
            ));
        }
        Ok(Self { map, file, extents })
    }

    /// Number of extents.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.extents
    }

    /// The process that owns (or owned) the pool.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.map.view::<PoolHeader>(0, 1)[0].pid.load(Relaxed)
    }

    /// The file, to keep or to pass on.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// An extent's metadata; `None` for one that does not exist or holds nonsense.
    #[must_use]
    pub fn meta(&self, index: usize) -> Option<ExtentMeta> {
        if index >= self.extents {
            return None;
        }
        read_meta(&self.map.view::<ExtentLine>(PAGE_BYTES, self.extents)[index])
    }

    /// Copies an extent's published bytes into `out` (replaced). `None` when the extent holds
    /// nonsense or was given to another use meanwhile.
    #[must_use]
    pub fn copy(&self, index: usize, out: &mut Vec<u8>) -> Option<ExtentMeta> {
        let meta = self.meta(index)?;
        out.clear();
        let offset = data_offset(self.extents) + index * EXTENT_BYTES;
        let words = self
            .map
            .view::<AtomicU64>(offset, meta.published.div_ceil(8));
        for word in words {
            out.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        out.truncate(meta.published);
        fence(Acquire);
        let after = self.meta(index)?;
        (after.generation == meta.generation).then_some(meta)
    }

    /// Indexes of extents that are not free: after the dataplane's death, what it had captured and
    /// not made durable.
    pub fn unfinished(&self) -> impl Iterator<Item = (usize, ExtentMeta)> + '_ {
        (0..self.extents)
            .filter_map(|index| self.meta(index).map(|meta| (index, meta)))
            .filter(|(_, meta)| meta.state != ExtentState::Free && meta.published > 0)
    }
}

/// A reader's file, to be opened by somebody else.
///
/// # Errors
/// Those of dup.
pub fn duplicate_file(pool: &Pool) -> io::Result<OwnedFd> {
    duplicate(&pool.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_published_survives_its_owner() {
        let (pool, mut tokens) = Pool::create(3).unwrap();
        let reader = PoolReader::open(duplicate_file(&pool).unwrap()).unwrap();
        let mut extent = tokens.swap_remove(1);
        extent.prepare();
        extent.open(2, 77, 5, 1234);
        extent.bytes_mut()[..11].copy_from_slice(b"hello world");
        extent.publish(11);
        extent.bytes_mut()[11] = b'!';
        drop((pool, tokens, extent));

        let unfinished: Vec<_> = reader.unfinished().collect();
        assert_eq!(unfinished.len(), 1);
        let (index, meta) = unfinished[0];
        assert_eq!(
            (index, meta.recording, meta.ordinal, meta.worker),
            (1, 77, 5, 2)
        );
        assert_eq!((meta.state, meta.origin_mono_ns), (ExtentState::Open, 1234));
        let mut bytes = Vec::new();
        assert!(reader.copy(index, &mut bytes).is_some());
        assert_eq!(bytes, b"hello world");
        assert_eq!(reader.pid(), std::process::id());
    }

    #[test]
    fn states_follow_an_extent_through_its_life() {
        let (pool, mut tokens) = Pool::create(1).unwrap();
        let reader = PoolReader::open(duplicate_file(&pool).unwrap()).unwrap();
        let mut extent = tokens.pop().unwrap();
        assert_eq!(extent.bytes().as_ptr() as usize % 4096, 0);
        assert_eq!(reader.unfinished().count(), 0);
        extent.open(0, 1, 0, 0);
        extent.publish(EXTENT_BYTES);
        extent.set_full();
        assert_eq!(reader.meta(0).unwrap().state, ExtentState::Full);
        extent.set_free();
        assert_eq!(reader.unfinished().count(), 0);
        let mut bytes = Vec::new();
        assert!(reader.copy(0, &mut bytes).is_some());
        assert_eq!(bytes.len(), EXTENT_BYTES, "still there for who is late");
        extent.open(0, 2, 0, 0);
        assert_eq!(reader.meta(0).unwrap().generation, 2);
        assert_eq!(reader.meta(0).unwrap().published, 0);
        assert!(reader.meta(1).is_none());
    }

    #[test]
    fn what_is_streamed_is_there_once_published() {
        let (pool, mut tokens) = Pool::create(2 * LARGE_PAGE_EXTENTS + 3).unwrap();
        let reader = PoolReader::open(duplicate_file(&pool).unwrap()).unwrap();
        for index in [0, LARGE_PAGE_EXTENTS, 2 * LARGE_PAGE_EXTENTS] {
            let mut extent = tokens.swap_remove(index);
            extent.prepare();
            extent.open(0, 7, 0, 0);
            let place = extent.index() as usize;
            let mut filling = extent.fill();
            let mut streamer = Streamer::default();
            let words: Vec<u8> = (0..=255).collect();
            for at in (0..EXTENT_BYTES).step_by(words.len()) {
                filling.stream(&mut streamer, at, &words);
            }
            filling.publish(&streamer.fence(), EXTENT_BYTES - 8);
            let mut bytes = Vec::new();
            assert!(reader.copy(place, &mut bytes).is_some());
            assert_eq!(bytes, words.repeat(EXTENT_BYTES / 256)[..EXTENT_BYTES - 8]);
            let extent = filling.close();
            assert_eq!(extent.state(), ExtentState::Full);
            assert_eq!(extent.bytes()[..256], words[..]);
        }
    }

    #[test]
    fn a_file_that_is_no_pool_is_refused() {
        let (_map, file) = SharedMap::create(
            "foreign",
            data_offset(1) + EXTENT_BYTES,
            Writers::CreatorOnly,
        )
        .unwrap();
        assert!(PoolReader::open(file).is_err());
        assert!(Pool::create(0).is_err());
    }
}
