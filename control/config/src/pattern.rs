//! Regular expressions of routes, and the form of a user part that they see.

use regex::Regex;
use std::borrow::Cow;

/// A compiled regular expression that remembers how it was written.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression that must match the whole text.
    ///
    /// # Errors
    /// Why it is no regular expression.
    pub fn whole(source: &str) -> Result<Self, String> {
        // Compiled alone first: "a)(b" must not become valid by the anchors' group.
        Self::anywhere(source)?;
        let regex = Regex::new(&format!("^(?:{source})$")).map_err(|error| describe(&error))?;
        Ok(Self {
            source: source.to_owned(),
            regex,
        })
    }

    /// Compiles an expression that may match any part of the text.
    ///
    /// # Errors
    /// Why it is no regular expression.
    pub fn anywhere(source: &str) -> Result<Self, String> {
        let regex = Regex::new(source).map_err(|error| describe(&error))?;
        Ok(Self {
            source: source.to_owned(),
            regex,
        })
    }

    /// The expression as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many groups it has, the whole match (0) included.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.regex.captures_len()
    }

    /// A template with `$N` replaced by what group N matched in the text.
    #[must_use]
    pub fn expand(&self, text: &str, template: &str) -> String {
        let found = self.regex.captures(text);
        let mut expanded = String::new();
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let group: usize = rest[..digits].parse().unwrap_or(usize::MAX);
            let matched = found.as_ref().and_then(|found| found.get(group));
            expanded.push_str(matched.map_or("", |matched| matched.as_str()));
            rest = &rest[digits..];
        }
        expanded + rest
    }

    /// Whether it matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// The last line of the regex crate's drawing of the error, which says what is wrong.
fn describe(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    format!(
        "not a regular expression: {}",
        reason.strip_prefix("error: ").unwrap_or(reason)
    )
}

/// A user part as routes see it: percent-decoded and, where it is a telephone number, without visual
/// separators (RFC 3966 section 5.1.1, and spaces). `john.doe` stays what it is.
#[must_use]
pub fn normalize_user(user: &str) -> String {
    let decoded = percent_decode(user);
    if is_number_with_separators(&decoded) {
        decoded
            .chars()
            .filter(|letter| !is_separator(*letter))
            .collect()
    } else {
        decoded.into_owned()
    }
}

fn is_separator(letter: char) -> bool {
    matches!(letter, '-' | '.' | '(' | ')' | ' ')
}

fn is_number_with_separators(user: &str) -> bool {
    let number = user.strip_prefix('+').unwrap_or(user);
    number.contains(|letter: char| letter.is_ascii_digit())
        && number.chars().all(|letter| {
            letter.is_ascii_digit() || matches!(letter, '*' | '#') || is_separator(letter)
        })
}

/// Decodes %XX; what is not UTF-8 afterwards is replaced, what is no escape stays.
fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(hex_byte) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(*digits.first()?).to_digit(16)?;
    let low = char::from(*digits.get(1)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lose_their_separators_and_names_keep_theirs() {
        assert_eq!(normalize_user("+49-(30) 123.45"), "+493012345");
        assert_eq!(normalize_user("%2B4930%2D1"), "+49301");
        assert_eq!(normalize_user("*21#"), "*21#");
        assert_eq!(normalize_user("john.doe"), "john.doe");
        assert_eq!(normalize_user("alice-2"), "alice-2");
        assert_eq!(normalize_user("-"), "-");
        assert_eq!(normalize_user("100%"), "100%");
        assert_eq!(normalize_user("%zz%4"), "%zz%4");
        assert_eq!(normalize_user("%ff"), "\u{fffd}");
    }

    #[test]
    fn a_whole_pattern_matches_nothing_less() {
        let pattern = Pattern::whole("10|20").unwrap();
        assert!(pattern.is_match("10") && pattern.is_match("20"));
        assert!(!pattern.is_match("100") && !pattern.is_match("120"));
        assert!(Pattern::whole("a)(b").is_err());
        assert!(
            Pattern::whole("(")
                .unwrap_err()
                .starts_with("not a regular expression: unclosed")
        );
    }
}
