//! The evidence archive's container: a plain ustar file in which every byte is determined by the
//! members' names and contents, so that any other byte is found.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use tar::Header;

/// Bytes of a header, and what contents are padded to.
const BLOCK: usize = 512;
/// The checksum's place in a header.
const CHECKSUM: Range<usize> = 148..156;

/// Writes members one after the other.
pub(crate) struct ArchiveWriter<W> {
    out: W,
    at: u64,
}

/// What was written of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

/// Hashes and counts what passes.
pub(crate) struct Hashing<'a, W> {
    out: &'a mut W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write + Seek> ArchiveWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    /// Adds a member whose length shows only once it is written.
    pub(crate) fn add<T>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Hashing<'_, W>) -> io::Result<T>,
    ) -> io::Result<(Member, T)> {
        self.out.write_all(&[0; BLOCK])?;
        let mut hashing = Hashing {
            out: &mut self.out,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        let result = write(&mut hashing)?;
        let (bytes, blake3) = (hashing.bytes, hashing.hasher.finalize().to_hex());
        let padding = bytes.next_multiple_of(BLOCK as u64) - bytes;
        self.out.write_all(&[0; BLOCK][..padding as usize])?;
        self.out.seek(SeekFrom::Start(self.at))?;
        self.out.write_all(header(name, bytes)?.as_bytes())?;
        self.at = self.out.seek(SeekFrom::End(0))?;
        let member = Member {
            name: name.to_owned(),
            bytes,
            blake3: blake3.to_string(),
        };
        Ok((member, result))
    }

    /// The end: two empty blocks.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn header(name: &str, bytes: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o444);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// A member found in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub name: String,
    pub range: Range<usize>,
}

/// Whether this is a tar file.
pub(crate) fn looks_like_archive(bytes: &[u8]) -> bool {
    bytes.get(257..262).is_some_and(|magic| magic == b"ustar")
}

/// The members of an archive, and the places that are not as [`ArchiveWriter`] writes them: offset and
/// what is wrong.
pub(crate) fn members(bytes: &[u8]) -> (Vec<Found>, Vec<(usize, &'static str)>) {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    let mut at = 0;
    while let Some(block) = bytes.get(at..at + BLOCK) {
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let Some((name, length, expected)) = read_header(block) else {
            bad.push((at, "archive header is damaged"));
            return (found, bad);
        };
        if let Some(wrong) = first_difference(block, &expected) {
            // Where the checksum differs, any byte of the header may be the wrong one.
            let wrong = if CHECKSUM.contains(&wrong) { 0 } else { wrong };
            bad.push((at + wrong, "archive header is damaged"));
        }
        let from = at + BLOCK;
        let Some(end) = from.checked_add(length).filter(|end| *end <= bytes.len()) else {
            bad.push((bytes.len(), "the archive is cut"));
            return (found, bad);
        };
        at = end.next_multiple_of(BLOCK).min(bytes.len());
        if let Some(wrong) = bytes[end..at].iter().position(|&byte| byte != 0) {
            bad.push((end + wrong, "bytes behind a member"));
        }
        found.push(Found {
            name,
            range: from..end,
        });
    }
    match bytes[at.min(bytes.len())..]
        .iter()
        .position(|&byte| byte != 0)
    {
        Some(wrong) => bad.push((at + wrong, "bytes behind the last member")),
        None if bytes.len() != at + 2 * BLOCK => bad.push((bytes.len(), "the archive is cut")),
        None => {}
    }
    (found, bad)
}

/// Name, length, and the header that these should have.
fn read_header(block: &[u8]) -> Option<(String, usize, Vec<u8>)> {
    let block: [u8; BLOCK] = block.try_into().ok()?;
    let mut given = Header::new_ustar();
    given.as_mut_bytes().copy_from_slice(&block);
    let name = given.path().ok()?.to_str()?.to_owned();
    let bytes = given.entry_size().ok()?;
    let expected = header(&name, bytes).ok()?.as_bytes().to_vec();
    Some((name, usize::try_from(bytes).ok()?, expected))
}

pub(crate) fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    differs.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}
