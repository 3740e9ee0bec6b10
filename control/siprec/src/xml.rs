//! XML as a small bounded tree. Namespaces are left to whoever asks: names are compared without prefix.

use crate::limits::{ATTRIBUTES_MAX, DEPTH_MAX, DOCUMENT_BYTES_MAX, ELEMENTS_MAX};
use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};
use std::borrow::Cow;

/// Why a text is no XML we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Longer than [`DOCUMENT_BYTES_MAX`].
    #[error("{0} bytes are more than the {DOCUMENT_BYTES_MAX} a document may have")]
    TooLong(usize),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("elements are nested deeper than {DEPTH_MAX}, at byte {0}")]
    TooDeep(u64),
    /// More than [`ELEMENTS_MAX`] elements, or [`ATTRIBUTES_MAX`] attributes of one.
    #[error("too many elements or attributes, at byte {0}")]
    TooMany(u64),
    /// A document type definition: entities could be defined in it.
    #[error("a document type definition is not read, at byte {0}")]
    DocumentType(u64),
    /// No element in it.
    #[error("there is no element in it")]
    Empty,
    /// Not well-formed.
    #[error("not well-formed at byte {at}: {what}")]
    Malformed {
        /// The byte.
        at: u64,
        /// What was wrong.
        what: String,
    },
}

/// An element.
#[derive(Debug, Clone, Default)]
pub struct Element {
    /// Name without prefix.
    pub name: String,
    /// Attributes, names without prefix, `xmlns` ones included.
    pub attributes: Vec<(String, String)>,
    /// Elements in it.
    pub children: Vec<Element>,
    /// Its own text, without that of its children.
    pub text: String,
    /// The element as written.
    pub source: String,
}

impl Element {
    /// Parses a document. Other encodings than UTF-8 are read as if they were it, undecodable bytes
    /// becoming U+FFFD. A document whose last elements are not closed is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Element, XmlError> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(XmlError::TooLong(bytes.len()));
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches(|c: char| c == '\u{FEFF}' || c.is_whitespace());
        Tree::new(text).run()
    }

    /// The value of an attribute by its name without prefix, in any case of letters.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The text without the white space around it; None if nothing remains.
    pub fn trimmed(&self) -> Option<&str> {
        let text = self.text.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The first child of a name, in any case of letters.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.is(name))
    }

    /// Whether the element has the name, in any case of letters.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// All text in it, that of children after a space each.
    pub fn deep_text(&self) -> String {
        let mut words = Vec::new();
        self.collect_text(&mut words);
        words.join(" ")
    }

    fn collect_text(&self, words: &mut Vec<String>) {
        words.extend(self.trimmed().map(str::to_owned));
        for child in &self.children {
            child.collect_text(words);
        }
    }
}

struct Tree<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    /// Elements not closed yet, each with the byte it began at.
    open: Vec<(Element, usize)>,
    elements: usize,
}

impl<'a> Tree<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            reader: Reader::from_str(text),
            open: Vec::new(),
            elements: 0,
        }
    }

    fn run(mut self) -> Result<Element, XmlError> {
        loop {
            let from = self.at();
            match self.reader.read_event() {
                Ok(Event::Start(start)) => self.start(&start, from)?,
                Ok(Event::Empty(start)) => {
                    self.start(&start, from)?;
                    if let Some(root) = self.end() {
                        return Ok(root);
                    }
                }
                Ok(Event::End(_)) => {
                    if let Some(root) = self.end() {
                        return Ok(root);
                    }
                }
                Ok(Event::Text(text)) => self.append(&String::from_utf8_lossy(&text)),
                Ok(Event::CData(text)) => self.append(&String::from_utf8_lossy(&text)),
                Ok(Event::GeneralRef(reference)) => self.reference(&reference)?,
                Ok(Event::DocType(_)) => return Err(XmlError::DocumentType(from as u64)),
                Ok(Event::Decl(_) | Event::PI(_) | Event::Comment(_)) => {}
                Ok(Event::Eof) if self.open.is_empty() => return Err(XmlError::Empty),
                Ok(Event::Eof) => return Err(self.malformed("an element is not closed")),
                Err(error) => return Err(self.malformed(&error.to_string())),
            }
        }
    }

    fn at(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(self.text.len())
    }

    fn malformed(&self, what: &str) -> XmlError {
        XmlError::Malformed {
            at: self.reader.error_position().max(self.at() as u64),
            what: what.to_owned(),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>, from: usize) -> Result<(), XmlError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(XmlError::TooMany(from as u64));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(XmlError::TooDeep(from as u64));
        }
        let mut element = Element {
            name: String::from_utf8_lossy(start.local_name().as_ref()).into_owned(),
            ..Element::default()
        };
        for attribute in start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|error| self.malformed(&error.to_string()))?;
            if element.attributes.len() >= ATTRIBUTES_MAX {
                return Err(XmlError::TooMany(from as u64));
            }
            let name = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
            let raw = String::from_utf8_lossy(&attribute.value);
            let value = quick_xml::escape::unescape(&raw)
                .map(Cow::into_owned)
                .unwrap_or_else(|_| raw.clone().into_owned());
            element.attributes.push((name, value));
        }
        self.open.push((element, from));
        Ok(())
    }

    /// Closes the innermost element; the root, if it was that.
    fn end(&mut self) -> Option<Element> {
        let (mut element, from) = self.open.pop()?;
        element.source = self
            .text
            .get(from..self.at())
            .unwrap_or_default()
            .to_owned();
        match self.open.last_mut() {
            Some((parent, _)) => {
                parent.children.push(element);
                None
            }
            None => Some(element),
        }
    }

    fn append(&mut self, text: &str) {
        if let Some((element, _)) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }

    /// A character or predefined entity; any other stays as it is written.
    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), XmlError> {
        if reference.is_char_ref() {
            let resolved = reference
                .resolve_char_ref()
                .map_err(|error| self.malformed(&error.to_string()))?;
            if let Some(c) = resolved {
                self.append(c.encode_utf8(&mut [0; 4]));
            }
            return Ok(());
        }
        let name = String::from_utf8_lossy(reference).into_owned();
        match quick_xml::escape::resolve_predefined_entity(&name) {
            Some(text) => self.append(text),
            None => self.append(&format!("&{name};")),
        }
        Ok(())
    }
}
