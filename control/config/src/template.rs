//! Names made of a recording's facts: `{date}/{recording}`.

use std::fmt;

/// A fact that a name may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameField {
    /// Id of the recording.
    Recording,
    /// Id of the call.
    Call,
    /// Start, UTC: `2026-11-28`.
    Date,
    /// Start, UTC: `2026`.
    Year,
    /// Start, UTC: `11`.
    Month,
    /// Start, UTC: `28`.
    Day,
    /// Start, UTC: `021005`.
    Time,
    /// Tenant.
    Tenant,
    /// User part of the caller.
    Caller,
    /// User part of the callee.
    Callee,
}

impl NameField {
    const ALL: [(&'static str, Self); 10] = [
        ("recording", Self::Recording),
        ("call", Self::Call),
        ("date", Self::Date),
        ("year", Self::Year),
        ("month", Self::Month),
        ("day", Self::Day),
        ("time", Self::Time),
        ("tenant", Self::Tenant),
        ("caller", Self::Caller),
        ("callee", Self::Callee),
    ];
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(NameField),
}

/// A relative path without an extension, with fields to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(Vec<Part>);

/// A name's longest field, in bytes.
const FIELD_BYTES_MAX: usize = 100;

impl Default for NameTemplate {
    fn default() -> Self {
        Self(vec![
            Part::Field(NameField::Date),
            Part::Text("/".to_owned()),
            Part::Field(NameField::Recording),
        ])
    }
}

impl NameTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it. `{recording}` must be in it: names would collide.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a { is not closed")?;
            let field = NameField::ALL.iter().find(|(known, _)| *known == name);
            let Some((_, field)) = field else {
                let known: Vec<&str> = NameField::ALL.iter().map(|(known, _)| *known).collect();
                return Err(format!("{{{name}}} is not one of {}", known.join(", ")));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(*field));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let template = Self(parts);
        if !template.0.contains(&Part::Field(NameField::Recording)) {
            return Err("must hold {recording}: names would collide".to_owned());
        }
        template.judge()?;
        Ok(template)
    }

    /// What stands between the fields must make an ordinary relative path.
    fn judge(&self) -> Result<(), String> {
        let ordinary = |letter: char| {
            letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-' | '+' | '=')
        };
        for part in &self.0 {
            if let Part::Text(text) = part
                && let Some(letter) = text.chars().find(|letter| !ordinary(*letter))
            {
                return Err(format!("{letter:?} cannot stand in a name"));
            }
        }
        let example = self.fill(|_| "x".to_owned());
        let plain = |step: &str| !step.is_empty() && !step.starts_with('.');
        if !example.split('/').all(plain) {
            return Err(
                "must be a relative path whose steps are not empty and begin without a dot"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The name; what a field gives is made harmless.
    #[must_use]
    pub fn fill(&self, field: impl Fn(NameField) -> String) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(one) => name.push_str(&harmless(&field(*one))),
            }
        }
        name
    }
}

/// Without what means something in a path or to a shell; never empty, never a hidden file.
fn harmless(value: &str) -> String {
    let harmless = value.chars().map(|letter| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '+' => letter,
        _ => '_',
    });
    let text: String = harmless.take(FIELD_BYTES_MAX).collect();
    match text.chars().next() {
        None => "_".to_owned(),
        Some('.') => format!("_{}", &text[1..]),
        Some(_) => text,
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => formatter.write_str(text)?,
                Part::Field(field) => {
                    let name = NameField::ALL.iter().find(|(_, one)| one == field);
                    write!(formatter, "{{{}}}", name.map_or("", |(name, _)| name))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_and_made_harmless() {
        let template = NameTemplate::parse("{tenant}/{date}/{caller}-{recording}").unwrap();
        let name = template.fill(|field| match field {
            NameField::Tenant => "..".to_owned(),
            NameField::Date => "2026-11-28".to_owned(),
            NameField::Caller => "../+49 30/ä".to_owned(),
            _ => "id".to_owned(),
        });
        assert_eq!(name, "_./2026-11-28/_._+49_30__-id");
        assert_eq!(template.to_string(), "{tenant}/{date}/{caller}-{recording}");
        assert_eq!(
            NameTemplate::default(),
            NameTemplate::parse("{date}/{recording}").unwrap()
        );
        assert_eq!(
            NameTemplate::default().fill(|_| String::new()),
            "_/_",
            "never empty"
        );
    }

    #[test]
    fn what_makes_no_path_is_refused() {
        for (text, why) in [
            ("", "{recording}"),
            ("{date}", "{recording}"),
            ("{recording", "not closed"),
            ("{recording}{foo}", "{foo} is not one of"),
            ("/{recording}", "relative path"),
            ("a/../{recording}", "relative path"),
            (".{recording}", "relative path"),
            ("a//{recording}", "relative path"),
            ("a b/{recording}", "' ' cannot stand"),
        ] {
            let error = NameTemplate::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
