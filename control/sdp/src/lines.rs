//! The outermost layer: bytes to `(number, type, value)` lines.

use crate::SdpError;
use crate::limits::{BYTES_MAX, TEXT_LINES_MAX};

/// One `type=value` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Number in the text, from 1.
    pub number: usize,
    /// The letter before `=`.
    pub letter: char,
    /// What follows, without surrounding blanks.
    pub value: String,
}

/// Splits a body into lines. CRLF, LF or CR end a line; bytes that are not UTF-8 are replaced;
/// blank lines and lines without `letter=` are passed over, for real equipment sends both.
pub(crate) fn split(bytes: &[u8]) -> Result<Vec<Line>, SdpError> {
    if bytes.len() > BYTES_MAX {
        return Err(SdpError::TooLarge);
    }
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text
        .trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .is_empty()
    {
        return Err(SdpError::Empty);
    }
    let mut lines = Vec::new();
    let normalised = text.replace("\r\n", "\n").replace('\r', "\n");
    for (index, raw) in normalised.split('\n').enumerate() {
        let number = index + 1;
        if number > TEXT_LINES_MAX {
            return Err(SdpError::TooLarge);
        }
        if let Some((letter, value)) = split_line(raw) {
            lines.push(Line {
                number,
                letter,
                value,
            });
        }
    }
    Ok(lines)
}

fn split_line(raw: &str) -> Option<(char, String)> {
    let raw = raw.trim_start();
    let (letter, value) = raw.split_once('=')?;
    let mut letters = letter.trim_end().chars();
    let letter = letters.next()?;
    if letters.next().is_some() || !letter.is_ascii_alphabetic() {
        return None;
    }
    // Control characters have no place in a value and must not reach the far side.
    let value: String = value
        .trim()
        .chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect();
    Some((letter.to_ascii_lowercase(), value))
}
