//! Reading a TOML table key by key, with every complaint placed at its line.

use crate::{ConfigError, ConfigErrors};
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The complaints about one text.
pub(crate) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    /// With the byte offset that each is about.
    errors: Vec<(usize, ConfigError)>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            errors: Vec::new(),
        }
    }

    /// Adds a complaint about the key at a byte offset.
    pub(crate) fn add(&mut self, at: usize, key: &str, message: impl Into<String>) {
        let message = message.into();
        let error = ConfigError {
            message,
            ..self.place(at, key)
        };
        self.errors.push((at, error));
    }

    /// A complaint about the key at a byte offset that says nothing yet.
    pub(crate) fn place(&self, at: usize, key: &str) -> ConfigError {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            message: String::new(),
        }
    }

    /// All complaints in file order; `Ok` when there is none.
    pub(crate) fn finish(mut self) -> Result<(), ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.sort_by_key(|(at, _)| *at);
        Err(ConfigErrors(
            self.errors.into_iter().map(|(_, error)| error).collect(),
        ))
    }
}

/// One table while it is being read.
pub(crate) struct Section<'t> {
    /// Byte offset of its header.
    pub(crate) at: usize,
    path: String,
    table: &'t DeTable<'t>,
    known: BTreeSet<String>,
}

impl<'t> Section<'t> {
    /// `path` is what precedes a key in messages, without the dot; empty at the top.
    pub(crate) fn new(path: &str, at: usize, table: &'t DeTable<'t>) -> Self {
        Self {
            at,
            path: path.to_owned(),
            table,
            known: BTreeSet::new(),
        }
    }

    /// The key as it stands in messages.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The value of a key, which is known from now on.
    pub(crate) fn take(&mut self, name: &str) -> Option<Item<'t>> {
        self.known.insert(name.to_owned());
        let (key, value) = self.table.get_key_value(name)?;
        Some(Item {
            key: self.key(name),
            at: key.span().start,
            value,
        })
    }

    /// Declares keys that are defined but not built; a value given for one must be its default.
    pub(crate) fn unbuilt(&mut self, report: &mut Report<'_>, keys: &[(&str, Default)]) {
        for (name, default) in keys {
            if let Some(item) = self.take(name)
                && !default.is(item.value.get_ref())
            {
                report.add(item.at, &item.key, "not supported yet");
            }
        }
    }

    /// Complains of every key that nobody took.
    pub(crate) fn finish(self, report: &mut Report<'_>) {
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.known.contains(name) {
                continue;
            }
            let hint = match nearest(name, self.known.iter().map(String::as_str)) {
                Some(known) => format!("unknown key; did you mean {known:?}?"),
                None => "unknown key".to_owned(),
            };
            report.add(key.span().start, &self.key(name), hint);
        }
    }
}

/// The documented default of a key that is not built yet.
pub(crate) enum Default {
    /// Off when absent: any value asks for something.
    Absent,
    /// The empty string, list or table.
    Empty,
    /// A string.
    Text(&'static str),
}

impl Default {
    fn is(&self, value: &DeValue<'_>) -> bool {
        match (self, value) {
            (Self::Empty, DeValue::String(text)) => text.is_empty(),
            (Self::Empty, DeValue::Array(items)) => items.is_empty(),
            (Self::Empty, DeValue::Table(table)) => table.is_empty(),
            (Self::Text(default), DeValue::String(text)) => text == default,
            _ => false,
        }
    }
}

/// One key's value.
pub(crate) struct Item<'t> {
    /// The key with its table.
    pub(crate) key: String,
    /// Byte offset of the key.
    pub(crate) at: usize,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

/// A string and where it stands.
pub(crate) struct Text<'t> {
    pub(crate) key: String,
    pub(crate) at: usize,
    pub(crate) text: &'t str,
}

impl Text<'_> {
    /// Applies a parser; its error becomes a complaint.
    pub(crate) fn map<T>(
        &self,
        report: &mut Report<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.text)
            .map_err(|message| report.add(self.at, &self.key, message))
            .ok()
    }
}

impl<'t> Item<'t> {
    /// A complaint about this key.
    pub(crate) fn complain(&self, report: &mut Report<'_>, message: impl Into<String>) {
        report.add(self.at, &self.key, message);
    }

    /// An entry of this list.
    pub(crate) fn entry(&self, value: &'t Spanned<DeValue<'t>>) -> Item<'t> {
        Item {
            key: self.key.clone(),
            at: value.span().start,
            value,
        }
    }

    fn wrong_type(&self, report: &mut Report<'_>, wanted: &str) {
        self.complain(
            report,
            format!("must be {wanted}, not {}", article(self.value.get_ref())),
        );
    }

    pub(crate) fn string(&self, report: &mut Report<'_>) -> Option<Text<'t>> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(Text {
                key: self.key.clone(),
                at: self.at,
                text: text.as_ref(),
            }),
            _ => {
                self.wrong_type(report, "a string");
                None
            }
        }
    }

    pub(crate) fn boolean(&self, report: &mut Report<'_>) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(report, "true or false");
        }
        value
    }

    /// An integer within bounds, both inclusive.
    pub(crate) fn integer(&self, report: &mut Report<'_>, min: u64, max: u64) -> Option<u64> {
        let Some(integer) = self.value.get_ref().as_integer() else {
            self.wrong_type(report, "an integer");
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            _ => {
                self.complain(
                    report,
                    format!("must be between {min} and {max}, not {integer}"),
                );
                None
            }
        }
    }

    pub(crate) fn integer_u32(&self, report: &mut Report<'_>, min: u32, max: u32) -> Option<u32> {
        self.integer(report, min.into(), max.into())
            .and_then(|value| u32::try_from(value).ok())
    }

    pub(crate) fn array(&self, report: &mut Report<'_>) -> Option<&'t DeArray<'t>> {
        let array = self.value.get_ref().as_array();
        if array.is_none() {
            self.wrong_type(report, "a list");
        }
        array
    }

    pub(crate) fn table(&self, report: &mut Report<'_>) -> Option<&'t DeTable<'t>> {
        let table = self.value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(report, "a table");
        }
        table
    }

    /// A list of strings.
    pub(crate) fn strings(&self, report: &mut Report<'_>) -> Option<Vec<Text<'t>>> {
        let mut texts = Vec::new();
        let mut whole = true;
        for item in self.array(report)?.iter() {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Text {
                        key: self.key.clone(),
                        at,
                        text: text.as_ref(),
                    });
                }
                other => {
                    let message = format!("each entry must be a string, not {}", article(other));
                    report.add(at, &self.key, message);
                    whole = false;
                }
            }
        }
        whole.then_some(texts)
    }

    /// The tables of a `[[name]]`.
    pub(crate) fn tables(&self, report: &mut Report<'_>) -> Vec<Section<'t>> {
        let Some(items) = self.value.get_ref().as_array() else {
            self.complain(report, format!("must be written [[{}]]", self.key));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::new(&self.key, item.span().start, table));
                }
                _ => report.add(
                    item.span().start,
                    &self.key,
                    format!("must be written [[{}]]", self.key),
                ),
            }
        }
        sections
    }
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known word nearest to a mistyped one, if it is near enough to be meant.
fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 2 && *distance < candidate.len().min(word.len())
        })
        .min()
        .map(|(_, candidate)| candidate)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
