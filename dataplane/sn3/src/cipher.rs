//! Encryption of extents: AES-256-GCM (NIST SP 800-38D) with one data key a recording, and the wrapping
//! of data keys by a master key.
//!
//! Of an extent everything from its first frame to its trailer is encrypted; the header is
//! authenticated with it. Nonce: the ordinal, then 8 random bytes that the header holds.

use std::path::{Path, PathBuf};

use aes::Aes256;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use ctr::cipher::{KeyIvInit, StreamCipher};

use crate::extent::{ExtentHeader, extent_flags};
use crate::layout::EXTENT_HEADER;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes by which a master key is known without being told.
pub const KEY_ID_BYTES: usize = 16;

/// Key of one recording.
#[derive(Clone)]
pub struct DataKey(Aes256Gcm, [u8; KEY_BYTES]);

/// Key that wraps data keys.
#[derive(Clone)]
pub struct MasterKey {
    cipher: Aes256Gcm,
    id: [u8; KEY_ID_BYTES],
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DataKey")
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MasterKey")
    }
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A line is not 64 hexadecimal digits.
    #[error(
        "{path}: line {line}: a key is 64 hexadecimal digits (make one by `openssl rand -hex 32`)"
    )]
    NotAKey {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("{path}: no key in there (make one by `openssl rand -hex 32`)")]
    Empty {
        /// File.
        path: PathBuf,
    },
}

/// A data key that is wrapped by a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapped {
    /// Master key that wraps it.
    pub master: [u8; KEY_ID_BYTES],
    /// Nonce of the wrapping.
    pub nonce: [u8; NONCE_BYTES],
    /// The encrypted key and its tag.
    pub sealed: [u8; KEY_BYTES + TAG_BYTES],
}

/// Random bytes of the operating system.
///
/// # Errors
/// It has none to give.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

impl DataKey {
    /// A new one.
    ///
    /// # Errors
    /// The operating system has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        random().map(|bytes| Self::from_bytes(&bytes))
    }

    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Aes256Gcm::new(bytes.into()), *bytes)
    }

    /// Its bytes: whoever has them reads the recording.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.1
    }

    /// Encrypts a sealed extent in place, whose header says *encrypted* and has its nonce.
    pub(crate) fn encrypt(&self, extent: &mut [u8], header: &ExtentHeader) {
        let (body, tag) = extent[EXTENT_HEADER..].split_at_mut(header.body_end() - EXTENT_HEADER);
        let sealed = self
            .0
            .encrypt_in_place_detached(&nonce_of(header), &authenticated(header), body)
            .expect("an extent is far below the cipher's limit");
        tag[..TAG_BYTES].copy_from_slice(&sealed);
    }

    /// The extent with its frames in the clear; its header still says *encrypted*. `None` when it is
    /// not as it was written, or the key is another's.
    #[must_use]
    pub fn decrypt(&self, extent: &[u8], header: &ExtentHeader) -> Option<Vec<u8>> {
        let end = header.body_end();
        let tag: [u8; TAG_BYTES] = extent.get(end..end + TAG_BYTES)?.try_into().ok()?;
        let mut clear = extent.get(..header.bytes())?.to_vec();
        self.0
            .decrypt_in_place_detached(
                &nonce_of(header),
                &authenticated(header),
                &mut clear[EXTENT_HEADER..end],
                &Tag::from(tag),
            )
            .ok()?;
        Some(clear)
    }

    /// What a damaged extent's frames may be, without proof: their checksums then tell the good ones.
    #[must_use]
    pub fn decrypt_damaged(&self, extent: &[u8], header: &ExtentHeader) -> Vec<u8> {
        let mut clear = extent.to_vec();
        let mut block = [0u8; 16];
        block[..NONCE_BYTES].copy_from_slice(&nonce_of(header));
        // GCM counts from 2: block 1 is the tag's.
        block[15] = 2;
        let end = header.body_end().min(clear.len());
        if let Some(body) = clear.get_mut(EXTENT_HEADER..end) {
            ctr::Ctr32BE::<Aes256>::new(&self.1.into(), &block.into()).apply_keystream(body);
        }
        clear
    }
}

fn nonce_of(header: &ExtentHeader) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0u8; NONCE_BYTES];
    nonce[..4].copy_from_slice(&header.ordinal.to_le_bytes());
    nonce[4..].copy_from_slice(&header.nonce.to_le_bytes());
    nonce.into()
}

/// The header's bytes without its checksum, which is computed over the encrypted extent.
fn authenticated(header: &ExtentHeader) -> [u8; EXTENT_HEADER] {
    ExtentHeader {
        checksum: 0,
        ..*header
    }
    .encode()
}

impl MasterKey {
    /// From its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let hash = blake3::derive_key("trunkline 2026 master key id", bytes);
        let mut id = [0u8; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        Self {
            cipher: Aes256Gcm::new(bytes.into()),
            id,
        }
    }

    /// Its name: tells keys apart and tells nothing of them.
    #[must_use]
    pub const fn id(&self) -> &[u8; KEY_ID_BYTES] {
        &self.id
    }

    /// Wraps a recording's data key.
    ///
    /// # Errors
    /// The operating system has no random bytes to give.
    pub fn wrap(&self, key: &DataKey, recording: u64) -> std::io::Result<Wrapped> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let mut sealed = [0u8; KEY_BYTES + TAG_BYTES];
        let (body, tag) = sealed.split_at_mut(KEY_BYTES);
        body.copy_from_slice(key.bytes());
        let made = self
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &recording.to_le_bytes(), body)
            .expect("a key is far below the cipher's limit");
        tag.copy_from_slice(&made);
        Ok(Wrapped {
            master: self.id,
            nonce,
            sealed,
        })
    }

    /// The data key; `None` when another master key or another recording's key was wrapped.
    #[must_use]
    pub fn unwrap(&self, wrapped: &Wrapped, recording: u64) -> Option<DataKey> {
        if wrapped.master != self.id {
            return None;
        }
        let mut bytes: [u8; KEY_BYTES] = *wrapped.sealed.first_chunk()?;
        let tag: [u8; TAG_BYTES] = *wrapped.sealed.last_chunk()?;
        self.cipher
            .decrypt_in_place_detached(
                &wrapped.nonce.into(),
                &recording.to_le_bytes(),
                &mut bytes,
                &Tag::from(tag),
            )
            .ok()?;
        Some(DataKey::from_bytes(&bytes))
    }
}

/// Reads a key file: a key a line, 64 hexadecimal digits; the first is the one that wraps, the others
/// unwrap what was wrapped before. Empty lines and lines that start with `#` are skipped.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_key_file(path: &Path) -> Result<Vec<MasterKey>, KeyFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Io {
        path: path.to_path_buf(),
        source,
    })?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = crate::proof::from_hex(line).ok_or_else(|| KeyFileError::NotAKey {
            path: path.to_path_buf(),
            line: index + 1,
        })?;
        keys.push(MasterKey::from_bytes(&bytes));
    }
    if keys.is_empty() {
        return Err(KeyFileError::Empty {
            path: path.to_path_buf(),
        });
    }
    Ok(keys)
}

/// Whether an extent's frames are encrypted.
#[must_use]
pub(crate) const fn is_encrypted(header: &ExtentHeader) -> bool {
    header.has(extent_flags::ENCRYPTED) && !header.has(extent_flags::ERASED)
}
