//! The header list: order and bytes as received, looked up case-insensitively and by compact
//! form.

use std::borrow::Cow;
use std::fmt;

use super::name::{NameId, OTHER, name_id};
use super::text::{decode, is_token_byte, split_outside};

/// One header field, its line kept exactly as received (or as built).
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderField {
    /// The whole line with folds and the line end.
    line: Box<[u8]>,
    name_len: u32,
    value_start: u32,
    value_end: u32,
    id: NameId,
}

impl HeaderField {
    /// A field made by us. Bytes that no name may hold are left out of the name; a line break
    /// in the value becomes a space, so no value can smuggle in another header.
    pub fn new(name: &str, value: impl AsRef<[u8]>) -> HeaderField {
        let value = value.as_ref();
        let mut line = Vec::with_capacity(name.len() + value.len() + 4);
        line.extend(name.bytes().filter(|byte| is_token_byte(*byte)));
        let name_len = line.len();
        line.extend_from_slice(b": ");
        let value_start = line.len();
        line.extend(value.iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        }));
        let value_end = line.len();
        line.extend_from_slice(b"\r\n");
        HeaderField::from_line(line, name_len, value_start, value_end)
    }

    /// A field from its received line; the lexer has found the parts.
    pub(crate) fn from_line(
        line: Vec<u8>,
        name_len: usize,
        value_start: usize,
        value_end: usize,
    ) -> HeaderField {
        let id = name_id(&line[..name_len]);
        HeaderField {
            line: line.into_boxed_slice(),
            name_len: name_len as u32,
            value_start: value_start as u32,
            value_end: value_end as u32,
            id,
        }
    }

    /// The name as received.
    pub fn name(&self) -> &str {
        // The lexer and `new` admit token bytes only, which are ASCII.
        std::str::from_utf8(&self.line[..self.name_len as usize]).unwrap_or("")
    }

    /// Whether the field has this name, in any case or compact form.
    pub fn is(&self, name: &str) -> bool {
        self.matches(name_id(name.as_bytes()), name)
    }

    pub(crate) fn matches(&self, id: NameId, name: &str) -> bool {
        if id == OTHER {
            self.id == OTHER && self.name().eq_ignore_ascii_case(name)
        } else {
            self.id == id
        }
    }

    /// The value as received, without white space at its ends, folds included.
    pub fn raw_value(&self) -> &[u8] {
        &self.line[self.value_start as usize..self.value_end as usize]
    }

    /// The value with every fold as one space.
    pub fn value(&self) -> Cow<'_, [u8]> {
        let raw = self.raw_value();
        if !raw.contains(&b'\n') {
            return Cow::Borrowed(raw);
        }
        let mut unfolded: Vec<u8> = Vec::with_capacity(raw.len());
        let mut index = 0;
        while index < raw.len() {
            if matches!(raw[index], b'\r' | b'\n') {
                while unfolded
                    .last()
                    .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
                {
                    unfolded.pop();
                }
                while raw
                    .get(index)
                    .is_some_and(|byte| matches!(byte, b'\r' | b'\n' | b' ' | b'\t'))
                {
                    index += 1;
                }
                unfolded.push(b' ');
            } else {
                unfolded.push(raw[index]);
                index += 1;
            }
        }
        Cow::Owned(unfolded)
    }

    /// The value as text: folds as one space, bytes that are not UTF-8 read as Latin-1.
    pub fn text(&self) -> Cow<'_, str> {
        match self.value() {
            Cow::Borrowed(bytes) => decode(bytes),
            Cow::Owned(bytes) => Cow::Owned(decode(&bytes).into_owned()),
        }
    }

    /// The whole line with its line end, as received.
    pub fn line(&self) -> &[u8] {
        &self.line
    }
}

impl fmt::Debug for HeaderField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {:?}", self.name(), self.text())
    }
}

/// The header fields of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<HeaderField>,
}

impl Headers {
    /// An empty list.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields in order.
    pub fn iter(&self) -> std::slice::Iter<'_, HeaderField> {
        self.fields.iter()
    }

    /// The fields of this name (any case, compact form), in order.
    pub fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a HeaderField> {
        let id = name_id(name.as_bytes());
        self.fields
            .iter()
            .filter(move |field| field.matches(id, name))
    }

    /// The first value of this name as text.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let id = name_id(name.as_bytes());
        self.fields
            .iter()
            .find(|field| field.matches(id, name))
            .map(HeaderField::text)
    }

    /// The first value of this name as bytes, folds as one space.
    pub fn get_bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let id = name_id(name.as_bytes());
        self.fields
            .iter()
            .find(|field| field.matches(id, name))
            .map(HeaderField::value)
    }

    /// The values of all fields of this name as text, one item a field (no list splitting).
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
        self.fields(name).map(HeaderField::text)
    }

    /// All elements of a comma-separated header, over all its fields, in order. Empty
    /// elements are left out.
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut elements = Vec::new();
        for field in self.fields(name) {
            let text = field.text();
            let parts = split_outside(&text, b',').filter(|part| !part.is_empty());
            elements.extend(parts.map(str::to_owned));
        }
        elements
    }

    /// Whether the comma-separated header holds this token, in any case (`Supported`,
    /// `Require`, `Allow`).
    pub fn list_contains(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .iter()
            .any(|element| element.eq_ignore_ascii_case(token))
    }

    /// Whether a field of this name is present.
    pub fn contains(&self, name: &str) -> bool {
        self.fields(name).next().is_some()
    }

    /// Number of fields of this name.
    pub fn count(&self, name: &str) -> usize {
        self.fields(name).count()
    }

    /// Adds a field at the end.
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.fields.push(HeaderField::new(name, value));
    }

    /// Adds a field before the first one of its name, or at the top when it is the first.
    pub fn prepend(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let id = name_id(name.as_bytes());
        let at = self
            .fields
            .iter()
            .position(|field| field.matches(id, name))
            .unwrap_or(0);
        self.fields.insert(at, HeaderField::new(name, value));
    }

    /// Makes this the only field of its name: in the place of the first one, else at the end.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let id = name_id(name.as_bytes());
        match self.fields.iter().position(|field| field.matches(id, name)) {
            Some(first) => {
                self.fields[first] = HeaderField::new(name, value);
                let mut index = 0;
                self.fields.retain(|field| {
                    index += 1;
                    index - 1 == first || !field.matches(id, name)
                });
            }
            None => self.append(name, value),
        }
    }

    /// Replaces the value of the first field of this name, leaving further ones alone; adds
    /// the field at the top when there is none.
    pub fn set_first(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let id = name_id(name.as_bytes());
        match self.fields.iter().position(|field| field.matches(id, name)) {
            Some(first) => self.fields[first] = HeaderField::new(name, value),
            None => self.fields.insert(0, HeaderField::new(name, value)),
        }
    }

    /// Removes all fields of this name and says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let id = name_id(name.as_bytes());
        let before = self.fields.len();
        self.fields.retain(|field| !field.matches(id, name));
        before - self.fields.len()
    }

    /// Keeps only the fields for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&HeaderField) -> bool) {
        self.fields.retain(keep);
    }

    /// Copies all fields of this name from another list to the end of this one; values keep
    /// their bytes, folds become one space.
    pub fn copy(&mut self, from: &Headers, name: &str) {
        for field in from.fields(name) {
            self.fields
                .push(HeaderField::new(field.name(), field.value()));
        }
    }

    pub(crate) fn push(&mut self, field: HeaderField) {
        self.fields.push(field);
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a HeaderField;
    type IntoIter = std::slice::Iter<'a, HeaderField>;

    fn into_iter(self) -> Self::IntoIter {
        self.fields.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_up_set_and_remove_by_any_spelling() {
        let mut headers = Headers::new();
        headers.append("Via", "one");
        headers.append("X-Thing", "a");
        headers.append("v", "two");
        headers.append("x-thing", "b");
        assert_eq!(headers.get_all("VIA").collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(headers.count("X-THING"), 2);
        headers.prepend("Via", "zero");
        assert_eq!(headers.get("v").unwrap(), "zero");
        headers.set_first("Via", "nought");
        assert_eq!(
            headers.get_all("Via").collect::<Vec<_>>(),
            ["nought", "one", "two"]
        );
        headers.set("Via", "only");
        assert_eq!(headers.count("Via"), 1);
        assert_eq!(headers.remove("X-Thing"), 2);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_header() {
        let field = HeaderField::new("Subject\r\nEvil", "a\r\nVia: b");
        assert_eq!(field.line(), b"SubjectEvil: a  Via: b\r\n");
    }
}
