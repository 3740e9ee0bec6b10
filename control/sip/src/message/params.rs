//! Parameters of a header value: `;name=value;flag;name="quoted"`.

use std::borrow::Cow;
use std::fmt;

use super::text::{find_outside, split_outside, trim, unquote};

/// A list of parameters in order; values as written, quotes included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    items: Vec<(String, Option<String>)>,
}

impl Params {
    /// Parses what follows the first `;` of a value. With `strict`, an empty parameter is an
    /// error; otherwise empty ones are left out.
    pub(crate) fn parse(text: &str, strict: bool) -> Result<Params, &'static str> {
        let mut items = Vec::new();
        for part in split_outside(text, b';') {
            if part.is_empty() {
                if strict {
                    return Err("empty parameter");
                }
                continue;
            }
            items.push(parse_one(part)?);
        }
        Ok(Params { items })
    }

    /// The value of a parameter as written (`None` also for a flag without value).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).and_then(|(_, value)| value.as_deref())
    }

    /// The value without quotes and escapes.
    pub fn unquoted(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(unquote)
    }

    /// Whether the parameter is present, with or without value.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&(String, Option<String>)> {
        self.items
            .iter()
            .find(|(item, _)| item.eq_ignore_ascii_case(name))
    }

    /// Sets a parameter in its place, or adds it at the end. The value is written as given:
    /// quote it where it needs that.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        match self
            .items
            .iter_mut()
            .find(|(item, _)| item.eq_ignore_ascii_case(name))
        {
            Some(item) => item.1 = value,
            None => self.items.push((name.to_owned(), value)),
        }
    }

    /// Removes a parameter and says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.items.len();
        self.items
            .retain(|(item, _)| !item.eq_ignore_ascii_case(name));
        before != self.items.len()
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.items
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

fn parse_one(part: &str) -> Result<(String, Option<String>), &'static str> {
    let (name, value) = match find_outside(part, b'=') {
        Some(at) => (trim(&part[..at]), Some(trim(&part[at + 1..]))),
        None => (part, None),
    };
    let plain = |byte: u8| byte > b' ' && !b"\",;<>=".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("bad parameter name");
    }
    if let Some(value) = value {
        let quoted = value.starts_with('"');
        let whole = if quoted {
            super::text::quoted_end(value) == Some(value.len())
        } else {
            // Angle brackets occur in extension parameters of Contact and Reason.
            !value
                .bytes()
                .any(|byte| matches!(byte, b'"' | b',' | b' ' | b'\t'))
        };
        if !whole {
            return Err("bad parameter value");
        }
    }
    Ok((name.to_owned(), value.map(str::to_owned)))
}

impl fmt::Display for Params {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.items {
            write!(formatter, ";{name}")?;
            if let Some(value) = value {
                write!(formatter, "={value}")?;
            }
        }
        Ok(())
    }
}
