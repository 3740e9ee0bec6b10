//! Signed statements: who holds the public key can tell that we said this, and that it was not
//! changed since (Ed25519, RFC 8032).

use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde_json::{Map, Value};

/// Why a key or a signature is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The key's file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file does not hold an Ed25519 private key.
    #[error(
        "{path}: not an Ed25519 private key in PKCS#8 PEM (make one by `openssl genpkey -algorithm ed25519`)"
    )]
    NotAKey {
        /// File.
        path: PathBuf,
    },
    /// Not 64 hexadecimal digits that are a point of the curve.
    #[error("not an Ed25519 public key")]
    NotAPublicKey,
    /// The signature is not that of this key over this statement.
    #[error("the signature does not fit")]
    DoesNotFit,
}

/// Signs statements.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signer({})", self.public_key())
    }
}

impl Signer {
    /// Reads a private key: PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn load(path: &Path) -> Result<Self, ProofError> {
        let text = std::fs::read_to_string(path).map_err(|source| ProofError::Io {
            path: path.to_path_buf(),
            source,
        })?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|_| ProofError::NotAKey {
            path: path.to_path_buf(),
        })?;
        Ok(Self { key })
    }

    /// From the 32 secret bytes of RFC 8032.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(secret),
        }
    }

    /// The public key, 64 hexadecimal digits.
    #[must_use]
    pub fn public_key(&self) -> String {
        to_hex(self.key.verifying_key().as_bytes())
    }

    /// The signature over a message, 128 hexadecimal digits.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        to_hex(&self.key.sign(message).to_bytes())
    }
}

/// Checks a signature that [`Signer::sign`] made.
///
/// # Errors
/// [`ProofError::NotAPublicKey`], [`ProofError::DoesNotFit`].
pub fn check(public_key: &str, message: &[u8], signature: &str) -> Result<(), ProofError> {
    let key = from_hex::<32>(public_key)
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or(ProofError::NotAPublicKey)?;
    let bytes = from_hex::<64>(signature).ok_or(ProofError::DoesNotFit)?;
    key.verify_strict(message, &Signature::from_bytes(&bytes))
        .map_err(|_| ProofError::DoesNotFit)
}

/// What is signed of a recording as the API shows it: id, call, times, verdict, and the receipt with
/// the head of the hash chain, in [`canonical`] form.
#[must_use]
pub fn statement(recording: &Value) -> Vec<u8> {
    const FIELDS: [&str; 6] = [
        "id",
        "call_id",
        "started_at",
        "ended_at",
        "verdict",
        "receipt",
    ];
    let mut said: Map<String, Value> = FIELDS
        .iter()
        .map(|field| ((*field).to_owned(), recording[*field].clone()))
        .collect();
    let chain = said
        .get_mut("receipt")
        .and_then(|receipt| receipt.get_mut("chain"))
        .and_then(Value::as_object_mut);
    if let Some(chain) = chain {
        chain.remove("signature");
        chain.remove("public_key");
    }
    canonical(&Value::Object(said))
}

/// JSON without white space and with the keys of each object in byte order, so that equal values give
/// equal bytes.
#[must_use]
pub fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|one, other| one.0.cmp(other.0));
            out.push(b'{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend(Value::from(name.as_str()).to_string().into_bytes());
                out.push(b':');
                write_canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        plain => out.extend(plain.to_string().into_bytes()),
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0u8; N];
    for (byte, at) in bytes.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_vector_of_rfc_8032_is_met() {
        let secret =
            from_hex::<32>("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let signer = Signer::from_secret(&secret.expect("hexadecimal"));
        assert_eq!(
            signer.public_key(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let signature = signer.sign(b"");
        assert!(
            signature
                .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555f")
        );
        assert!(check(&signer.public_key(), b"", &signature).is_ok());
        assert!(check(&signer.public_key(), b"x", &signature).is_err());
        assert!(check("00", b"", &signature).is_err());
    }

    #[test]
    fn a_statement_does_not_depend_on_the_order_of_fields_nor_on_its_own_signature() {
        let one = json!({"id": "r", "call_id": "c", "state": "complete", "receipt":
            {"caller": {"written": 3, "lost": 0}, "chain": {"head": "ab", "signature": null}}});
        let mut other = json!({"receipt": {"chain": {"signature": "ff", "public_key": "00", "head": "ab"},
            "caller": {"lost": 0, "written": 3}}, "call_id": "c", "id": "r", "held": true});
        assert_eq!(statement(&one), statement(&other));
        other["receipt"]["caller"]["written"] = json!(4);
        assert_ne!(statement(&one), statement(&other));
        let text =
            String::from_utf8(canonical(&json!({"b": [1, "x\"y"], "a": null}))).expect("UTF-8");
        assert_eq!(text, r#"{"a":null,"b":[1,"x\"y"]}"#);
    }
}
