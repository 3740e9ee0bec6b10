//! `[[retention]]`: how long the recordings of a tenant or class are kept.

use crate::reader::{Item, Report};

/// Rules at most.
const RULES_MAX: usize = 1000;

/// One `[[retention]]`. The first that fits a recording decides about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Recordings of this tenant; `None` = of any.
    pub tenant: Option<String>,
    /// Recordings of this class (their attribute `class`); `None` = of any.
    pub class: Option<String>,
    /// Days after which an ended recording is deleted; `None` = never.
    pub keep_days: Option<u32>,
    /// Bytes of all recordings that it fits above which the oldest are deleted; `None` = no limit.
    pub quota_bytes: Option<u64>,
}

pub(crate) fn read_all(item: &Item<'_>, report: &mut Report<'_>) -> Vec<Retention> {
    let mut rules = Vec::new();
    for mut section in item.tables(report) {
        let mut name = |key: &str| {
            let text = section.take(key)?.string(report)?;
            if text.text.is_empty() {
                report.add(text.at, &text.key, "must not be empty");
            }
            Some(text.text.to_owned())
        };
        let (tenant, class) = (name("tenant"), name("class"));
        if tenant.is_none() && class.is_none() {
            let message = "names neither tenant nor class: use [recording] for all the others";
            report.add(section.at, "retention", message);
        }
        rules.push(Retention {
            tenant,
            class,
            keep_days: section
                .take("keep_days")
                .and_then(|item| item.integer_u32(report, 1, 36_500)),
            quota_bytes: section
                .take("quota_bytes")
                .and_then(|item| item.integer(report, 1 << 20, 1 << 60)),
        });
        section.finish(report);
    }
    if rules.len() > RULES_MAX {
        item.complain(report, format!("at most {RULES_MAX} rules"));
    }
    rules
}
