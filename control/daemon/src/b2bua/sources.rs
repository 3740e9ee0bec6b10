//! What one source address may ask for: calls at once, new calls a second, and how many refusals make it
//! a scanner that hears nothing for a while. All of it is off unless configured.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use trunkline_config::Sip;

/// Sources that are remembered; above that, those that matter least are forgotten.
const SOURCES_MAX: usize = 65_536;
/// The interval of `source_calls_per_second_max`.
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Source {
    /// Its calls now.
    calls: u32,
    /// Start of the second in which new calls are counted, and how many came in it.
    second: (Instant, u32),
    /// Start of the interval in which refusals are counted, and how many it had.
    refusals: (Instant, u32),
    /// It hears nothing until then.
    banned_until: Option<Instant>,
}

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<IpAddr, Source>);

impl Sources {
    fn entry(&mut self, source: IpAddr, now: Instant, window: Duration) -> &mut Source {
        if self.0.len() >= SOURCES_MAX {
            // Whoever has calls, is banned or was refused lately is kept.
            self.0.retain(|_, one| {
                let banned = one.banned_until.is_some_and(|until| until > now);
                let refused = one.refusals.1 > 0 && one.refusals.0 + window > now;
                one.calls > 0 || banned || refused
            });
        }
        if self.0.len() >= SOURCES_MAX {
            self.0.retain(|_, one| one.calls > 0);
        }
        self.0.entry(source.to_canonical()).or_insert(Source {
            calls: 0,
            second: (now, 0),
            refusals: (now, 0),
            banned_until: None,
        })
    }

    /// Whether a source may begin one more call; its new calls of this second are counted.
    pub(super) fn admits(&mut self, source: IpAddr, sip: &Sip, now: Instant) -> bool {
        if sip.source_calls_max.is_none() && sip.source_calls_per_second_max.is_none() {
            return true;
        }
        let known = self.entry(source, now, SECOND);
        if sip.source_calls_max.is_some_and(|max| known.calls >= max) {
            return false;
        }
        let Some(max) = sip.source_calls_per_second_max else {
            return true;
        };
        if known.second.0 + SECOND <= now {
            known.second = (now, 0);
        }
        known.second.1 += 1;
        known.second.1 <= max
    }

    /// A call of a source began.
    pub(super) fn call_began(&mut self, source: IpAddr, now: Instant) {
        self.entry(source, now, SECOND).calls += 1;
    }

    /// A call of a source is over.
    pub(super) fn call_over(&mut self, source: IpAddr) {
        if let Some(known) = self.0.get_mut(&source.to_canonical()) {
            known.calls = known.calls.saturating_sub(1);
        }
    }

    /// A request of a source made no sense; gives whether it is banned by that.
    pub(super) fn refused(&mut self, source: IpAddr, sip: &Sip, now: Instant) -> bool {
        let Some(ban_after) = sip.ban_after else {
            return false;
        };
        let window = Duration::from_secs(u64::from(sip.ban_window_s));
        let known = self.entry(source, now, window);
        if known.refusals.0 + window <= now {
            known.refusals = (now, 0);
        }
        known.refusals.1 += 1;
        // Whoever has calls is no scanner, and would lose its BYEs.
        let banned = known.refusals.1 >= ban_after && known.calls == 0;
        if banned {
            known.banned_until = Some(now + Duration::from_secs(u64::from(sip.ban_s)));
            known.refusals = (now, 0);
        }
        banned
    }

    /// Whether a source is banned now.
    pub(super) fn is_banned(&mut self, source: IpAddr, now: Instant) -> bool {
        let Some(known) = self.0.get_mut(&source.to_canonical()) else {
            return false;
        };
        let banned = known.banned_until.is_some_and(|until| until > now);
        if !banned {
            known.banned_until = None;
        }
        banned
    }
}
