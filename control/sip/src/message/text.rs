//! Scanning of header text: tokens, quoted strings, lists (RFC 3261 section 25.1).

use std::borrow::Cow;

/// Whether a byte may stand in a token.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Whether the text is a non-empty token.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Linear white space at both ends removed (folds are already spaces here).
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

/// Header bytes as text: UTF-8 where it is, else each bad byte as its Latin-1 character, which
/// is what senders of such bytes mean in practice.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(bytes.len() + 8);
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
            }
            Cow::Owned(text)
        }
    }
}

/// Position of the first `wanted` outside quoted strings and outside `<…>`.
pub(crate) fn find_outside(text: &str, wanted: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut quoted, mut bracketed, mut index) = (false, false, 0);
    while index < bytes.len() {
        let byte = bytes[index];
        if !quoted && !bracketed && byte == wanted {
            return Some(index);
        }
        match byte {
            b'\\' if quoted => index += 1,
            b'"' if !bracketed => quoted = !quoted,
            b'<' if !quoted => bracketed = true,
            b'>' if !quoted => bracketed = false,
            _ => {}
        }
        index += 1;
    }
    None
}

/// The parts of a list separated by `separator` outside quotes and `<…>`, trimmed, empty
/// parts included.
pub(crate) fn split_outside(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match find_outside(text, separator) {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(trim(&text[..at]))
            }
            None => {
                rest = None;
                Some(trim(text))
            }
        }
    })
}

/// The content of a quoted string without its quotes and escapes; other text unchanged.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let text = trim(text);
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// The text as a quoted string.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        // A line break would end the header field.
        quoted.push(if matches!(character, '\r' | '\n') {
            ' '
        } else {
            character
        });
    }
    quoted.push('"');
    quoted
}

/// End of the quoted string that begins at the text's first byte: the index after its closing
/// quote, `None` if it never closes.
pub(crate) fn quoted_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut index = 1;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => index += 1,
            b'"' => return Some(index + 1),
            _ => {}
        }
        index += 1;
    }
    None
}

/// Percent-decoding; a `%` that begins no escape stays.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escape = (bytes[index] == b'%')
            .then(|| bytes.get(index + 1..index + 3))
            .flatten();
        match escape.and_then(hex_byte) {
            Some(byte) => {
                plain.push(byte);
                index += 3;
            }
            None => {
                plain.push(bytes[index]);
                index += 1;
            }
        }
    }
    Cow::Owned(decode(&plain).into_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(digits[0]).to_digit(16)?;
    let low = char::from(digits[1]).to_digit(16)?;
    Some((high * 16 + low) as u8)
}

/// Percent-encoding for a URI's user part (RFC 3261 `user`).
pub fn percent_encode_user(text: &str) -> String {
    percent_encode(text, b"-_.!~*'()&=+$,;?/")
}

/// Percent-encoding for the name or value of a header inside a URI (RFC 3261 `hname`).
pub fn percent_encode_header(text: &str) -> String {
    percent_encode(text, b"-_.!~*'()[]/?:+$")
}

fn percent_encode(text: &str, allowed: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || allowed.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_split_outside_quotes_and_brackets_only() {
        let text = r#""a, \"b" <sip:x,y@z>;q=1 , <sip:c@d>"#;
        let parts: Vec<_> = split_outside(text, b',').collect();
        assert_eq!(parts, [r#""a, \"b" <sip:x,y@z>;q=1"#, "<sip:c@d>"]);
    }

    #[test]
    fn quoting_is_undone_by_unquoting() {
        for text in ["plain", "with \"quotes\"", "back\\slash", ""] {
            assert_eq!(unquote(&quote(text)), text);
        }
    }

    #[test]
    fn percent_codes() {
        assert_eq!(
            percent_decode("sips%3Auser%40example.com"),
            "sips:user@example.com"
        );
        assert_eq!(percent_decode("%Z%45%"), "%ZE%");
        assert_eq!(percent_decode(&percent_encode_user("a b%@ä")), "a b%@ä");
    }

    #[test]
    fn bytes_that_are_not_utf8_read_as_latin1() {
        assert_eq!(decode(b"M\xfcller"), "Müller");
        assert_eq!(decode("Müller".as_bytes()), "Müller");
    }
}
