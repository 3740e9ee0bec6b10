//! The wrapped data keys of recordings, beside the segments: files of slots of 128 bytes.
//!
//! ```text
//! keys-00000001.sn3k     slot | slot | slot ...     appended by one process, never cut
//! slot:  SN3K | version u16 | flags u16 | recording u64 | master key id 16 | nonce 12 | 0 u32 |
//!        wrapped key 32 + tag 16 | zeros 28 | crc32c u32
//! ```
//! Erasing a recording overwrites its slots in place; a new master key has them written anew in place.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cipher::{DataKey, MasterKey, Wrapped};
use crate::proof::{from_hex, to_hex};

/// Bytes of a slot.
const SLOT: usize = 128;
const MAGIC: [u8; 4] = *b"SN3K";
const VERSION: u16 = 1;
/// The key is gone; zeros stand in its place.
const ERASED: u16 = 1;
/// Slots of a file before the next one is begun.
const SLOTS_MAX: u64 = 65_536;

/// One recording's wrapped key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    recording: u64,
    /// `None` = erased.
    wrapped: Option<Wrapped>,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT] {
        let mut bytes = [0u8; SLOT];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.recording.to_le_bytes());
        match &self.wrapped {
            Some(wrapped) => {
                bytes[16..32].copy_from_slice(&wrapped.master);
                bytes[32..44].copy_from_slice(&wrapped.nonce);
                bytes[48..96].copy_from_slice(&wrapped.sealed);
            }
            None => bytes[6..8].copy_from_slice(&ERASED.to_le_bytes()),
        }
        let checksum = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SLOT] = bytes.first_chunk()?;
        let sound = bytes[..4] == MAGIC
            && bytes[4..6] == VERSION.to_le_bytes()
            && bytes[124..] == crc32c::crc32c(&bytes[..124]).to_le_bytes();
        if !sound {
            return None;
        }
        let erased = bytes[6..8] == ERASED.to_le_bytes();
        let wrapped = Wrapped {
            master: bytes[16..32].try_into().ok()?,
            nonce: bytes[32..44].try_into().ok()?,
            sealed: bytes[48..96].try_into().ok()?,
        };
        Some(Self {
            recording: u64::from_le_bytes(bytes[8..16].try_into().ok()?),
            wrapped: (!erased).then_some(wrapped),
        })
    }
}

fn files(directory: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("keys-")?.strip_suffix(".sn3k"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The slots of a file with their offsets.
fn slots(bytes: &[u8]) -> impl Iterator<Item = (u64, Slot)> + '_ {
    bytes
        .chunks_exact(SLOT)
        .enumerate()
        .filter_map(|(index, bytes)| Some(((index * SLOT) as u64, Slot::decode(bytes)?)))
}

/// Master keys, the one that wraps first; none = nothing can be decrypted.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    masters: Vec<MasterKey>,
    /// A key that came with the recording, in an evidence archive.
    given: Option<DataKey>,
}

impl Keys {
    /// These master keys.
    #[must_use]
    pub const fn new(masters: Vec<MasterKey>) -> Self {
        Self {
            masters,
            given: None,
        }
    }

    /// None: for appliances that do not encrypt.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Of a key file; none where there is no such file configured.
    ///
    /// # Errors
    /// See [`crate::cipher::KeyFileError`].
    pub fn load(path: Option<&Path>) -> Result<Self, crate::cipher::KeyFileError> {
        let masters = path.map(crate::cipher::read_key_file).transpose()?;
        Ok(Self::new(masters.unwrap_or_default()))
    }

    /// One recording's own key.
    #[must_use]
    pub const fn of_one(key: DataKey) -> Self {
        Self {
            masters: Vec::new(),
            given: Some(key),
        }
    }

    /// The one recording's own key that came with it.
    #[must_use]
    pub fn given(&self) -> Option<DataKey> {
        self.given.clone()
    }

    /// Whether what is written is to be encrypted.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        !self.masters.is_empty()
    }

    /// A data key wrapped by the first master key, as a slot in hexadecimal: it can leave the machine.
    ///
    /// # Errors
    /// There is no master key, or the operating system has no random bytes to give.
    pub fn wrap(&self, key: &DataKey, recording: u64) -> io::Result<String> {
        let master = self.masters.first().ok_or(io::ErrorKind::InvalidInput)?;
        let slot = Slot {
            recording,
            wrapped: Some(master.wrap(key, recording)?),
        };
        Ok(to_hex(&slot.encode()))
    }

    /// The data key that [`Keys::wrap`] wrapped; `None` when no master key here unwraps it.
    #[must_use]
    pub fn unwrap(&self, text: &str) -> Option<DataKey> {
        let slot = Slot::decode(&from_hex::<SLOT>(text)?)?;
        let wrapped = slot.wrapped?;
        let mut masters = self.masters.iter();
        masters.find_map(|master| master.unwrap(&wrapped, slot.recording))
    }

    /// The data key of a recording whose segments lie in `directory`; `None` when it was erased, never
    /// made, or wrapped by a master key that is not here.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn find(&self, directory: &Path, recording: u64) -> io::Result<Option<DataKey>> {
        if self.given.is_some() || self.masters.is_empty() {
            return Ok(self.given.clone());
        }
        for (_, path) in files(directory)?.into_iter().rev() {
            let bytes = std::fs::read(&path)?;
            let found = slots(&bytes)
                .filter(|(_, slot)| slot.recording == recording)
                .find_map(|(_, slot)| slot.wrapped);
            if let Some(wrapped) = found {
                let mut masters = self.masters.iter();
                return Ok(masters.find_map(|master| master.unwrap(&wrapped, recording)));
            }
        }
        Ok(None)
    }
}

/// Makes data keys and stores them wrapped.
#[derive(Debug)]
pub struct KeyWriter {
    directory: PathBuf,
    keys: Keys,
    file: Option<(File, u64)>,
    known: HashMap<u64, DataKey>,
    /// Slots that may not be on the disk yet.
    unsynced: Vec<Slot>,
    /// A sync failed: these slots go to another file.
    distrusted: bool,
}

impl KeyWriter {
    /// Over a directory of segments. `keys` has to encrypt.
    #[must_use]
    pub fn new(directory: &Path, keys: Keys) -> Self {
        Self {
            directory: directory.to_path_buf(),
            keys,
            file: None,
            known: HashMap::new(),
            unsynced: Vec::new(),
            distrusted: false,
        }
    }

    /// The key of a recording: the one it has (`goes_on`: on disk perhaps), or a new one. A new one may
    /// be used for writing after [`KeyWriter::sync`] only.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn key_of(&mut self, recording: u64, goes_on: bool) -> io::Result<DataKey> {
        if let Some(key) = self.known.get(&recording) {
            return Ok(key.clone());
        }
        if goes_on && let Some(key) = self.keys.find(&self.directory, recording)? {
            self.known.insert(recording, key.clone());
            return Ok(key);
        }
        let key = DataKey::generate()?;
        let master = self
            .keys
            .masters
            .first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let slot = Slot {
            recording,
            wrapped: Some(master.wrap(&key, recording)?),
        };
        self.append(&slot)?;
        self.unsynced.push(slot);
        self.known.insert(recording, key.clone());
        Ok(key)
    }

    /// The recording is closed.
    pub fn forget(&mut self, recording: u64) {
        self.known.remove(&recording);
    }

    fn append(&mut self, slot: &Slot) -> io::Result<()> {
        let (file, length) = match &mut self.file {
            Some((file, length)) if *length < SLOTS_MAX * SLOT as u64 => (file, length),
            _ => {
                let made = self.create()?;
                let (file, length) = self.file.insert((made, 0));
                (file, length)
            }
        };
        file.write_all_at(&slot.encode(), *length)?;
        *length += SLOT as u64;
        Ok(())
    }

    /// The next file; processes that create at the same time take turns.
    fn create(&mut self) -> io::Result<File> {
        if self.file.is_some() {
            self.sync()?;
            self.file = None;
        }
        let lock = File::open(&self.directory)?;
        lock.lock()?;
        let number = files(&self.directory)?
            .last()
            .map_or(1, |(last, _)| last + 1);
        let path = self.directory.join(format!("keys-{number:08}.sn3k"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        lock.sync_all()?;
        Ok(file)
    }

    /// Makes new keys durable.
    ///
    /// # Errors
    /// Those of the disk: nothing that is encrypted with a new key may be written yet.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let synced = self.sync_file();
        match synced {
            Ok(()) => self.unsynced.clear(),
            // The kernel tells of a lost page once: another sync of this file would succeed without it.
            Err(_) => (self.file, self.distrusted) = (None, true),
        }
        synced
    }

    fn sync_file(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.distrusted) {
            for slot in self.unsynced.clone() {
                self.append(&slot)?;
            }
        }
        match &self.file {
            Some((file, _)) => file.sync_data(),
            None => Ok(()),
        }
    }
}

/// Destroys the wrapped keys of recordings; gives how many there were. May be repeated.
///
/// # Errors
/// Those of the disk.
pub fn erase_keys(directory: &Path, recordings: &BTreeSet<u64>) -> io::Result<usize> {
    let mut erased = 0;
    change_slots(directory, |slot| {
        let own = recordings.contains(&slot.recording) && slot.wrapped.is_some();
        erased += usize::from(own);
        own.then_some(Slot {
            wrapped: None,
            ..*slot
        })
    })?;
    Ok(erased)
}

/// What wrapping anew came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Keys that the first master key wraps now.
    pub keys: usize,
    /// Keys that no master key here unwraps: they stay as they are.
    pub unknown: usize,
}

/// Wraps every data key anew that another master key than the first of `keys` wraps.
///
/// # Errors
/// Those of the disk; may be repeated.
pub fn rewrap(directory: &Path, keys: &Keys) -> io::Result<Rewrapped> {
    let mut done = Rewrapped::default();
    let Some(current) = keys.masters.first() else {
        return Ok(done);
    };
    let mut failed = None;
    change_slots(directory, |slot| {
        let wrapped = slot.wrapped.filter(|one| one.master != *current.id())?;
        let mut old = keys.masters[1..].iter();
        let Some(key) = old.find_map(|old| old.unwrap(&wrapped, slot.recording)) else {
            done.unknown += 1;
            return None;
        };
        match current.wrap(&key, slot.recording) {
            Ok(wrapped) => {
                done.keys += 1;
                Some(Slot {
                    wrapped: Some(wrapped),
                    ..*slot
                })
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        }
    })?;
    failed.map_or(Ok(done), Err)
}

/// Writes slots anew in place, and durably.
fn change_slots(directory: &Path, mut change: impl FnMut(&Slot) -> Option<Slot>) -> io::Result<()> {
    for (_, path) in files(directory)? {
        let file = OpenOptions::new().write(true).open(&path)?;
        // One at a time: who wraps a key anew must not write back what another one erases just then.
        file.lock()?;
        let bytes = std::fs::read(&path)?;
        let mut changes = false;
        for (offset, slot) in slots(&bytes) {
            if let Some(changed) = change(&slot) {
                file.write_all_at(&changed.encode(), offset)?;
                changes = true;
            }
        }
        if changes {
            file.sync_data()?;
        }
    }
    Ok(())
}

const _: () = assert!(48 + 48 <= 124 && SLOT == 128);

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::from_bytes(&[byte; 32])
    }

    #[test]
    fn keys_come_back_until_they_are_erased_and_survive_a_change_of_the_master_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let old = Keys::new(vec![master(1)]);
        let mut writer = KeyWriter::new(path, old.clone());
        let first = writer.key_of(10, false).expect("a key");
        let second = writer.key_of(11, false).expect("a key");
        assert_ne!(first.bytes(), second.bytes());
        assert_eq!(
            writer.key_of(10, false).expect("known").bytes(),
            first.bytes()
        );
        writer.sync().expect("synced");
        let mut next = KeyWriter::new(path, old.clone());
        assert_eq!(next.key_of(10, true).expect("found").bytes(), first.bytes());
        next.key_of(12, true).expect("made");

        let both = Keys::new(vec![master(2), master(1)]);
        assert_eq!(
            rewrap(path, &both).expect("rewrapped"),
            Rewrapped {
                keys: 3,
                unknown: 0
            }
        );
        assert!(
            old.find(path, 10).expect("read").is_none(),
            "the old one is of no use now"
        );
        let new = Keys::new(vec![master(2)]);
        let found = new.find(path, 10).expect("read").expect("there");
        assert_eq!(found.bytes(), first.bytes());
        assert_eq!(
            rewrap(path, &Keys::new(vec![master(3)])).expect("nothing"),
            Rewrapped {
                keys: 0,
                unknown: 3
            }
        );

        let ten = BTreeSet::from([10]);
        assert_eq!(erase_keys(path, &ten).expect("erased"), 1);
        assert!(new.find(path, 10).expect("read").is_none());
        assert!(new.find(path, 11).expect("read").is_some());
        assert_eq!(erase_keys(path, &ten).expect("again"), 0);
        let wrapped = std::fs::read(path.join("keys-00000001.sn3k")).expect("there");
        assert!(
            wrapped[32..124].iter().all(|&byte| byte == 0),
            "nothing of the key is left"
        );
    }

    #[test]
    fn a_key_that_a_failed_sync_may_have_lost_is_written_elsewhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let keys = Keys::new(vec![master(1)]);
        let mut writer = KeyWriter::new(path, keys.clone());
        let key = writer.key_of(10, false).expect("a key");
        // It takes writes and refuses to sync.
        let null = OpenOptions::new().write(true).open("/dev/null");
        writer.file = Some((null.expect("there"), SLOT as u64));
        writer.key_of(11, false).expect("a key");
        assert!(writer.sync().is_err());
        std::fs::remove_file(path.join("keys-00000001.sn3k")).expect("there");
        writer.key_of(12, false).expect("a key");
        writer.sync().expect("synced");
        for recording in [10, 11, 12] {
            assert!(keys.find(path, recording).expect("read").is_some());
        }
        let found = keys.find(path, 10).expect("read").expect("there");
        assert_eq!(found.bytes(), key.bytes());
    }

    #[test]
    fn a_damaged_slot_is_no_key() {
        let slot = Slot {
            recording: 5,
            wrapped: Some(
                master(1)
                    .wrap(&DataKey::from_bytes(&[3; 32]), 5)
                    .expect("wrapped"),
            ),
        };
        let mut bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes), Some(slot));
        for at in 0..SLOT {
            bytes[at] ^= 1;
            assert_eq!(Slot::decode(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
        let wrapped = slot.wrapped.expect("a key");
        assert!(
            master(1).unwrap(&wrapped, 6).is_none(),
            "bound to its recording"
        );
        assert!(master(2).unwrap(&wrapped, 5).is_none());
    }
}
