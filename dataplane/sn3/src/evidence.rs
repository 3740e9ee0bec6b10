//! Evidence: one archive with everything that is known of a recording, to be checked without us.
//!
//! ```text
//! recording.json   the recording as the API shows it: receipt, verdict, head of the hash chain
//! call.json        its call           cdr.json   its call detail record     (each where there is one)
//! chain.json       the chain's links: ordinal, offset and length in recording.sn3s, link
//! data.key         the key of its extents, hexadecimal       (where they are encrypted, only on demand)
//! wrapped.key      that key wrapped by the master key                  (where data.key is withheld)
//! recording.sn3s   its extents, byte for byte, as a segment of its own
//! recording.sn3    the same call as classic SN3                    (in the clear: goes with data.key)
//! manifest.json    name, length and BLAKE3 of each member before it
//! manifest.b3      BLAKE3 of manifest.json
//! manifest.sig     Ed25519 over manifest.json                               (where a key is configured)
//! ```

use std::collections::HashSet;
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

use crate::archive::{self, ArchiveWriter, Found, Member, first_difference};
use crate::capture::{Capture, CaptureError, Damage};
use crate::chain;
use crate::cipher::DataKey;
use crate::extract::{Extracted, extract, follow};
use crate::keys::Keys;
use crate::layout::UNIT;
use crate::map::Bytes;
use crate::proof::{self, Signer};
use crate::reader::SegmentReader;
use crate::recording::RecordingReader;
use crate::verify::{VerifyReport, verify_segment};

/// The member with the extents.
pub const SEGMENT: &str = "recording.sn3s";
const CLASSIC: &str = "recording.sn3";
const RECORDING: &str = "recording.json";
const CHAIN: &str = "chain.json";
const KEY: &str = "data.key";
const WRAPPED: &str = "wrapped.key";
const MANIFEST: &str = "manifest.json";
const HASH: &str = "manifest.b3";
const SIGNATURE: &str = "manifest.sig";

/// What becomes of the key of an encrypted recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyChoice {
    /// The archive holds it wrapped by the master key, and no frame in the clear. Everything can be
    /// checked by anybody, and be read by whoever has the master key.
    #[default]
    Withheld,
    /// The archive holds it, and the call in the clear.
    Included,
}

/// What an archive is made of.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The recording as the API shows it.
    pub recording: Value,
    /// Its call.
    pub call: Option<Value>,
    /// Its call detail record.
    pub cdr: Option<Value>,
    /// Its frames, from segments.
    pub capture: &'a Capture,
    /// Whether an encrypted recording can be read by whoever gets the archive.
    pub key: KeyChoice,
    /// Wrap a key that is withheld.
    pub keys: &'a Keys,
    /// When the archive is made, RFC 3339.
    pub made_at: String,
}

impl Evidence<'_> {
    /// Writes the archive.
    ///
    /// # Errors
    /// Those of `out`; `InvalidInput` when the capture does not come from segments.
    pub fn write<W: Write + Seek>(&self, out: W, signer: Option<&Signer>) -> io::Result<W> {
        let Some(reader) = self.capture.recording() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut archive = ArchiveWriter::new(out);
        let mut members = Vec::new();
        let documents = [
            (RECORDING, Some(&self.recording)),
            ("call.json", self.call.as_ref()),
            ("cdr.json", self.cdr.as_ref()),
        ];
        for (name, document) in documents {
            if let Some(document) = document {
                let (member, ()) = archive.add(name, |out| write_json(out, document))?;
                members.push(member);
            }
        }
        let key = reader.data_key().filter(|_| reader.is_encrypted());
        let withheld = key.is_some() && self.key == KeyChoice::Withheld;
        if let Some(key) = key {
            let (name, text) = match withheld {
                false => (KEY, proof::to_hex(key.bytes())),
                true => (WRAPPED, self.keys.wrap(key, reader.recording())?),
            };
            let (member, ()) = archive.add(name, |out| out.write_all(text.as_bytes()))?;
            members.push(member);
        }
        let (member, extents) = archive.add(SEGMENT, |out| extract(reader, out))?;
        members.push(member);
        let (member, ()) = archive.add(CHAIN, |out| write_json(out, &links(&extents)))?;
        members.push(member);
        if !withheld {
            let (member, _) = archive.add(CLASSIC, |out| self.capture.export(out))?;
            members.push(member);
        }
        let manifest = self.manifest(&members, signer);
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        let (member, ()) = archive.add(MANIFEST, |out| out.write_all(&bytes))?;
        archive.add(HASH, |out| out.write_all(member.blake3.as_bytes()))?;
        if let Some(signer) = signer {
            archive.add(SIGNATURE, |out| {
                out.write_all(signer.sign(&bytes).as_bytes())
            })?;
        }
        archive.finish()
    }

    fn manifest(&self, members: &[Member], signer: Option<&Signer>) -> Value {
        let files = members.iter().map(
            |member| json!({"name": member.name, "bytes": member.bytes, "blake3": member.blake3}),
        );
        json!({
            "format": "trunkline-evidence",
            "version": 1,
            "made_at": self.made_at,
            "recording_id": self.recording["id"],
            "files": files.collect::<Vec<_>>(),
            "public_key": signer.map(Signer::public_key),
        })
    }
}

fn write_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

fn links(extents: &[Extracted]) -> Value {
    let extent = |one: &Extracted| {
        json!({
            "ordinal": one.ordinal, "offset": one.offset, "bytes": one.bytes,
            "link": one.link.map(|link| chain::to_hex(&link)),
        })
    };
    json!({"algorithm": "blake3", "extents": extents.iter().map(extent).collect::<Vec<_>>()})
}

/// What a check of an archive found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceReport {
    /// The recording's API id.
    pub recording_id: String,
    /// What its extents say for themselves.
    pub segment: Option<VerifyReport>,
    /// The extents are encrypted and their key is not in the archive: frames were not looked at.
    pub key_withheld: bool,
    /// Head of the hash chain, as followed.
    pub chain_head: Option<String>,
    /// Public key that signed the manifest; `None` = not signed.
    pub signed_by: Option<String>,
    /// Public key that signed the receipt when the recording ended.
    pub receipt_signed_by: Option<String>,
    /// Places that are not as they were written, by offset in the archive.
    pub damages: Vec<Damage>,
}

impl EvidenceReport {
    /// Nothing is damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty()
    }
}

/// Whether the file is an evidence archive (or another tar).
#[must_use]
pub fn looks_like_evidence(bytes: &[u8]) -> bool {
    archive::looks_like_archive(bytes)
}

/// Where the recording's extents lie in an archive.
#[must_use]
pub fn segment_range(bytes: &[u8]) -> Option<Range<usize>> {
    let (members, _) = archive::members(bytes);
    let found = members.into_iter().find(|member| member.name == SEGMENT)?;
    Some(found.range)
}

/// The key of the extents in an archive, where they are encrypted: the one in it, or the wrapped one
/// where a master key unwraps it.
#[must_use]
pub fn data_key(bytes: &[u8], keys: &Keys) -> Option<DataKey> {
    let (members, _) = archive::members(bytes);
    let text = |name: &str| {
        let found = members.iter().find(|member| member.name == name)?;
        std::str::from_utf8(bytes.get(found.range.clone())?).ok()
    };
    match text(KEY) {
        Some(text) => proof::from_hex(text).map(|key| DataKey::from_bytes(&key)),
        None => keys.unwrap(text(WRAPPED)?),
    }
}

/// Checks an archive: every byte, the hash chain against the receipt, the signatures. `trusted` is
/// the public key that must have signed; without it any key will do, and is reported.
///
/// # Errors
/// The file cannot be read, or is no archive.
pub fn verify(path: &Path, trusted: Option<&str>) -> Result<EvidenceReport, CaptureError> {
    let bytes = Bytes::open(path).map_err(|cause| CaptureError::Io {
        path: path.to_path_buf(),
        cause,
    })?;
    if !looks_like_evidence(&bytes) {
        return Err(CaptureError::NotACapture {
            path: path.to_path_buf(),
        });
    }
    let (members, bad) = archive::members(&bytes);
    let mut check = Check {
        path,
        bytes: &bytes,
        members: &members,
        report: EvidenceReport {
            recording_id: String::new(),
            segment: None,
            key_withheld: false,
            chain_head: None,
            signed_by: None,
            receipt_signed_by: None,
            damages: Vec::new(),
        },
    };
    for (offset, what) in bad {
        check.damage(offset, 0, what);
    }
    check.twins();
    check.segment();
    check.manifest(trusted);
    check.claims(trusted);
    let mut report = check.report;
    report.damages.sort_by_key(|damage| damage.offset);
    Ok(report)
}

struct Check<'a> {
    path: &'a Path,
    bytes: &'a Bytes,
    members: &'a [Found],
    report: EvidenceReport,
}

impl<'a> Check<'a> {
    fn damage(&mut self, offset: usize, length: usize, what: impl Into<String>) {
        self.report.damages.push(Damage {
            path: self.path.to_path_buf(),
            offset: offset as u64,
            length: length as u64,
            what: what.into(),
        });
    }

    fn member(&mut self, name: &str) -> Option<&'a Found> {
        let found = self.members.iter().find(|member| member.name == name);
        if found.is_none() {
            self.damage(self.bytes.len(), 0, format!("{name} is missing"));
        }
        found
    }

    fn json(&mut self, name: &str) -> Value {
        let Some(found) = self.member(name) else {
            return Value::Null;
        };
        let range = found.range.clone();
        serde_json::from_slice(&self.bytes[range.clone()]).unwrap_or_else(|error| {
            self.damage(range.start, range.len(), format!("{name}: {error}"));
            Value::Null
        })
    }

    /// Members of one name: whoever unpacks the archive gets the last one, and the first is checked.
    fn twins(&mut self) {
        let mut seen = HashSet::new();
        for found in self.members {
            if !seen.insert(found.name.as_str()) {
                let what = format!("{} is there more than once", found.name);
                self.damage(found.range.start, found.range.len(), what);
            }
        }
    }

    /// The extents, each byte of them, and the classic copy against them.
    fn segment(&mut self) {
        let Some(found) = self.member(SEGMENT) else {
            return;
        };
        let from = found.range.start;
        let unreadable = "recording.sn3s cannot be read";
        let member = Bytes::Memory(self.bytes[found.range.clone()].to_vec());
        let Ok(reader) = SegmentReader::over(member, Path::new("")) else {
            return self.damage(from, found.range.len(), unreadable);
        };
        let report = verify_segment(&reader);
        for damage in &report.damages {
            let offset = from + damage.offset as usize;
            self.damage(offset, damage.length as usize, damage.what.clone());
        }
        let has_key = self.members.iter().any(|member| member.name == KEY);
        self.report.key_withheld = report.encrypted > 0 && !has_key;
        self.report.segment = Some(report);
        let [recording] = reader.recordings()[..] else {
            return self.damage(from, found.range.len(), unreadable);
        };
        self.chain(from, &RecordingReader::sealed(reader, recording));
        if !self.report.key_withheld {
            self.classic(from..found.range.end);
        }
    }

    /// The hash chain through all extents, which lie from this offset on.
    fn chain(&mut self, from: usize, reader: &RecordingReader) {
        let (head, broken) = follow(reader);
        self.report.chain_head = head.map(|head| chain::to_hex(&head));
        if head.is_some() && self.report.damages.is_empty() {
            for view in broken {
                let ordinal = view.header.ordinal;
                let what = format!("the hash chain does not lead to extent {ordinal}");
                self.damage(from + view.page as usize * UNIT, 0, what);
            }
        }
    }

    /// The classic copy against the extents in this range.
    fn classic(&mut self, range: Range<usize>) {
        let Ok(capture) = Capture::open(self.path) else {
            return self.damage(range.start, range.len(), "recording.sn3s cannot be read");
        };
        let Some(classic) = self.member(CLASSIC) else {
            return;
        };
        let mut exported = Vec::new();
        if capture.export(&mut exported).is_ok()
            && let Some(wrong) = first_difference(&self.bytes[classic.range.clone()], &exported)
        {
            let at = classic.range.start + wrong;
            self.damage(at, 0, "recording.sn3 is not the call in recording.sn3s");
        }
    }

    /// Every member against the manifest, and that against its signature.
    fn manifest(&mut self, trusted: Option<&str>) {
        let Some((message, hash)) = self.member(MANIFEST).zip(self.member(HASH)) else {
            return;
        };
        let computed = blake3::hash(&self.bytes[message.range.clone()]).to_hex();
        if self.bytes[hash.range.clone()] != *computed.as_bytes() {
            // What it says of the others cannot be believed.
            let range = message.range.clone();
            return self.damage(
                range.start,
                range.len(),
                "manifest.json or its hash is damaged",
            );
        }
        let manifest = self.json(MANIFEST);
        for file in manifest["files"].as_array().into_iter().flatten() {
            let Some(found) = file["name"].as_str().and_then(|name| self.member(name)) else {
                continue;
            };
            let range = found.range.clone();
            let hash = blake3::hash(&self.bytes[range.clone()])
                .to_hex()
                .to_string();
            let told = self
                .report
                .damages
                .iter()
                .any(|damage| range.contains(&(damage.offset as usize)));
            if !told && file["blake3"] != hash.as_str() {
                let what = format!("{} is not what the manifest says", found.name);
                self.damage(range.start, range.len(), what);
            }
        }
        self.strangers(&manifest);
        if let Some(public_key) = manifest["public_key"].as_str().or(trusted) {
            let public_key = trusted.unwrap_or(public_key);
            let signed = self.member(MANIFEST).zip(self.member(SIGNATURE));
            if let Some((message, signature)) = signed {
                let text = std::str::from_utf8(&self.bytes[signature.range.clone()]);
                let message = message.range.clone();
                match proof::check(public_key, &self.bytes[message.clone()], text.unwrap_or("")) {
                    Ok(()) => self.report.signed_by = Some(public_key.to_owned()),
                    Err(error) => {
                        self.damage(message.start, message.len(), format!("{MANIFEST}: {error}"));
                    }
                }
            }
        }
    }

    /// Members that the manifest does not know.
    fn strangers(&mut self, manifest: &Value) {
        let files = manifest["files"].as_array();
        for found in self.members {
            let listed = files
                .into_iter()
                .flatten()
                .any(|file| file["name"] == found.name.as_str());
            if !listed && ![MANIFEST, HASH, SIGNATURE].contains(&found.name.as_str()) {
                let what = format!("{} is not in the manifest", found.name);
                self.damage(found.range.start, found.range.len(), what);
            }
        }
    }

    /// What the recording's entry claims against what was found.
    fn claims(&mut self, trusted: Option<&str>) {
        let recording = self.json(RECORDING);
        self.report.recording_id = recording["id"].as_str().unwrap_or_default().to_owned();
        let at = self
            .members
            .iter()
            .find(|member| member.name == RECORDING)
            .map_or(0..0, |member| member.range.clone());
        let claimed = &recording["receipt"]["chain"];
        if let Some(head) = claimed["head"].as_str()
            && Some(head) != self.report.chain_head.as_deref()
            && self.report.damages.is_empty()
        {
            let what = "the hash chain does not end where the receipt says";
            self.damage(at.start, at.len(), what);
        }
        if let Some(signature) = claimed["signature"].as_str() {
            let public_key = trusted
                .or(claimed["public_key"].as_str())
                .unwrap_or_default();
            match proof::check(public_key, &proof::statement(&recording), signature) {
                Ok(()) => self.report.receipt_signed_by = Some(public_key.to_owned()),
                Err(error) => self.damage(at.start, at.len(), format!("the receipt: {error}")),
            }
        }
    }
}
