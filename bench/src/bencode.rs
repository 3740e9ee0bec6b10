//! Bencode, as far as rtpengine's ng protocol uses it: byte strings, integers, lists, dictionaries.

use anyhow::{Result, bail};

/// Lists and dictionaries within each other, at most.
const DEPTH_MAX: usize = 16;

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A byte string, most often text.
    Bytes(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A list.
    List(Vec<Value>),
    /// A dictionary, in the order given: ng does not ask for sorted keys.
    Dictionary(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl Value {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => encode_bytes(bytes, out),
            Self::Integer(value) => out.extend(format!("i{value}e").into_bytes()),
            Self::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.encode(out));
                out.push(b'e');
            }
            Self::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_bytes(key.as_bytes(), out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Reads exactly one value.
    ///
    /// # Errors
    /// The bytes are no bencode, nest too deep, or go on behind the value.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let value = read(&mut rest, 0)?;
        if !rest.is_empty() {
            bail!("{} bytes after the value", rest.len());
        }
        Ok(value)
    }

    /// A dictionary's text value.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        let Self::Dictionary(entries) = self else {
            return None;
        };
        entries.iter().find_map(|(name, value)| match value {
            Self::Bytes(bytes) if name == key => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).into_bytes());
    out.extend_from_slice(bytes);
}

fn read(rest: &mut &[u8], depth: usize) -> Result<Value> {
    if depth > DEPTH_MAX {
        bail!("nested too deep");
    }
    match rest.first() {
        Some(b'i') => {
            *rest = &rest[1..];
            Ok(Value::Integer(number(rest, b'e')?))
        }
        Some(b'l') => {
            *rest = &rest[1..];
            let mut values = Vec::new();
            while !ends(rest)? {
                values.push(read(rest, depth + 1)?);
            }
            Ok(Value::List(values))
        }
        Some(b'd') => {
            *rest = &rest[1..];
            let mut entries = Vec::new();
            while !ends(rest)? {
                let key = String::from_utf8_lossy(&bytes(rest)?).into_owned();
                entries.push((key, read(rest, depth + 1)?));
            }
            Ok(Value::Dictionary(entries))
        }
        Some(b'0'..=b'9') => Ok(Value::Bytes(bytes(rest)?)),
        _ => bail!("no value where one must begin"),
    }
}

/// Whether the list or dictionary ends here; its end is taken then.
fn ends(rest: &mut &[u8]) -> Result<bool> {
    match rest.split_first() {
        Some((b'e', behind)) => {
            *rest = behind;
            Ok(true)
        }
        Some(_) => Ok(false),
        None => bail!("ends too early"),
    }
}

fn number(rest: &mut &[u8], end: u8) -> Result<i64> {
    let Some(length) = rest.iter().position(|byte| *byte == end) else {
        bail!("a number without end");
    };
    let text = std::str::from_utf8(&rest[..length])?;
    let value = text.parse()?;
    *rest = &rest[length + 1..];
    Ok(value)
}

fn bytes(rest: &mut &[u8]) -> Result<Vec<u8>> {
    let length = usize::try_from(number(rest, b':')?)?;
    let Some((bytes, behind)) = rest.split_at_checked(length) else {
        bail!("a string of {length} bytes ends too early");
    };
    *rest = behind;
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        let value = Value::Dictionary(vec![
            ("command".to_owned(), "offer".into()),
            (
                "replace".to_owned(),
                Value::List(vec!["origin".into(), Value::Integer(-7)]),
            ),
        ]);
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        assert_eq!(bytes, b"d7:command5:offer7:replacel6:origini-7eee");
        assert_eq!(Value::decode(&bytes).unwrap(), value);
        assert_eq!(value.text("command").as_deref(), Some("offer"));
        assert_eq!(value.text("replace"), None);
    }

    #[test]
    fn broken_bytes_are_an_error() {
        for bytes in [
            &b""[..],
            b"d",
            b"d3:abc",
            b"l",
            b"5:abc",
            b"i12",
            b"ixe",
            b"-1:a",
            b"99999999999999999999:a",
            b"i1eX",
            &[b'l'; 100],
        ] {
            assert!(Value::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
