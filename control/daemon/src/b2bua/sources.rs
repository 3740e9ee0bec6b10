//! What one source address may ask for: calls at once, new calls a second, and how many refusals make it
//! a scanner that hears nothing for a while. All of it is off unless configured.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use trunkline_config::{Host, Next, Sip};
use trunkline_sip::dialog::DialogId;
use trunkline_sip::message::{Message, Request};
use trunkline_sip::transaction::Path;

use super::B2bua;
use crate::clock::Moment;

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

/// Addresses of route targets' names that are remembered.
const TARGETS_MAX: usize = 4096;

/// All sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: HashMap<IpAddr, Source>,
    /// Where names of route targets led.
    targets: HashSet<IpAddr>,
}

impl Sources {
    fn entry(&mut self, source: IpAddr, now: Instant, window: Duration) -> &mut Source {
        if self.known.len() >= SOURCES_MAX {
            // Whoever has calls, is banned or was refused lately is kept.
            self.known.retain(|_, one| {
                let banned = one.banned_until.is_some_and(|until| until > now);
                let refused = one.refusals.1 > 0 && one.refusals.0 + window > now;
                one.calls > 0 || banned || refused
            });
        }
        if self.known.len() >= SOURCES_MAX {
            self.known.retain(|_, one| one.calls > 0);
        }
        self.known.entry(source.to_canonical()).or_insert(Source {
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
        if let Some(known) = self.known.get_mut(&source.to_canonical()) {
            known.calls = known.calls.saturating_sub(1);
        }
    }

    /// A request of a source made no sense; gives whether it is banned by that. `spared` says whether it
    /// is one that we need to hear.
    fn refused(
        &mut self,
        source: IpAddr,
        sip: &Sip,
        spared: impl FnOnce() -> bool,
        now: Instant,
    ) -> bool {
        let Some(ban_after) = sip.ban_after else {
            return false;
        };
        let window = Duration::from_secs(u64::from(sip.ban_window_s));
        let known = self.entry(source, now, window);
        if known.refusals.0 + window <= now {
            known.refusals = (now, 0);
        }
        known.refusals.1 += 1;
        // Whoever has calls is no scanner.
        let banned = known.refusals.1 >= ban_after && known.calls == 0 && !spared();
        if banned {
            known.banned_until = Some(now + Duration::from_secs(u64::from(sip.ban_s)));
            known.refusals = (now, 0);
        }
        banned
    }

    /// Whether a source is banned now.
    pub(super) fn is_banned(&mut self, source: IpAddr, now: Instant) -> bool {
        let Some(known) = self.known.get_mut(&source.to_canonical()) else {
            return false;
        };
        let banned = known.banned_until.is_some_and(|until| until > now);
        if !banned {
            known.banned_until = None;
        }
        banned
    }
}

impl B2bua {
    /// A source asked for what nobody who knows us would ask for.
    pub(super) fn note_senseless(&mut self, path: Path, now: &Moment) {
        let sip = &self.config.sip;
        let source = path.source.ip().to_canonical();
        let same = |address: IpAddr| address.to_canonical() == source;
        let targets = &self.sources.targets;
        let is_target = targets.contains(&source)
            || self.next_hosts().any(|host| match host {
                Host::Address(address) => same(*address),
                Host::Name(_) => false,
            });
        let calls = &mut self.calls;
        let spared = || {
            let mut legs = calls.values_mut().flat_map(|call| call.all_legs());
            is_target || legs.any(|leg| same(leg.remote.ip()))
        };
        if self.sources.refused(source, sip, spared, now.instant) {
            self.metrics.source_banned();
            tracing::warn!(%source, seconds = sip.ban_s, "a source is ignored: too many senseless requests");
        }
    }

    /// Hosts of the routes' targets.
    fn next_hosts(&self) -> impl Iterator<Item = &Host> {
        let groups = self.config.routes.iter().flat_map(|route| &route.next);
        groups.flatten().filter_map(|next| match next {
            Next::Target(target) => Some(&target.host),
            Next::Request | Next::Record => None,
        })
    }

    /// A name leads to an address; if it is a route target's, whoever is there is not ignored.
    pub(super) fn note_target(&mut self, name: &str, address: IpAddr) {
        let of_route = self.next_hosts().any(|host| match host {
            Host::Name(known) => known.eq_ignore_ascii_case(name),
            Host::Address(_) => false,
        });
        if of_route && self.sources.targets.len() < TARGETS_MAX {
            self.sources.targets.insert(address.to_canonical());
        }
    }

    /// What is heard of everybody: responses, whatever belongs to a dialog of ours, emergency calls.
    pub(super) fn is_of_a_call(&self, message: &Message) -> bool {
        let request = match message {
            Message::Response(_) => return true,
            Message::Request(request) => request,
        };
        let dialog = DialogId::of_request(request);
        dialog.is_some_and(|id| self.dialogs.contains_key(&id) || self.siprec.owns_dialog(&id))
            || self.is_emergency(request)
    }

    /// Whether a request is, or belongs to, an emergency call.
    pub(super) fn is_emergency(&self, request: &Request) -> bool {
        let user = request.uri.user_decoded().unwrap_or_default();
        let target = match user.is_empty() {
            true => request.uri.as_str(),
            false => &user,
        };
        self.config.sip.is_emergency(target)
    }
}
