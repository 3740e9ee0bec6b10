//! Where a call goes: groups of targets in order, the targets of one group at once, until one of
//! them answers. Each INVITE of ours is a branch with its own Call-ID and tag.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline_config::{Host, Next, Route, SipTarget};
use trunkline_link::message::Side;
use trunkline_sip::dialog::SessionPolicy;
use trunkline_sip::message::{Request, Scheme, Uri, bracketed};
use trunkline_sip::transaction::{ClientTx, Path, Transport};

use super::invite::Refused;
use super::outgoing::max_breadth;
use super::{B2bua, Hop, Lookup};
use crate::call::negotiation::Heard;
use crate::call::{Branch, Call, Destination, Failure, HostName, Phase, Step};
use crate::clock::Moment;

/// Targets to be tried, in order.
pub(super) type Groups = VecDeque<Vec<Destination>>;

/// The targets of a route for this request. One that cannot be used for it is left out, as long as
/// another is left.
pub(super) fn groups(route: &Route, request: &Request, path: Path) -> Result<Groups, Refused> {
    let mut refused = (404, Vec::new());
    let mut groups = Groups::new();
    for group in &route.next {
        let mut usable = Vec::new();
        for next in group {
            let found = match next {
                Next::Target(target) => target_destination(target, route, request),
                Next::Request => request_destination(request, path),
                // Only an INVITE that comes in can be a recording session.
                Next::Record => Err((403, Vec::new())),
            };
            match found {
                Ok(destination) => usable.push(destination),
                Err(why) => refused = why,
            }
        }
        if !usable.is_empty() {
            groups.push_back(usable);
        }
    }
    let breadth = max_breadth(&request.headers).unwrap_or(u32::MAX);
    let widest = groups.iter().map(Vec::len).max().unwrap_or(0);
    if u32::try_from(widest).unwrap_or(u32::MAX) > breadth {
        return Err((440, Vec::new()));
    }
    match groups.is_empty() {
        true => Err(refused),
        false => Ok(groups),
    }
}

fn target_destination(
    target: &SipTarget,
    route: &Route,
    request: &Request,
) -> Result<Destination, Refused> {
    let host = match &target.host {
        Host::Address(address) => bracketed(&address.to_string()).into_owned(),
        Host::Name(name) => name.clone(),
    };
    // A tel: URI's number stands where a sip: URI has its user (RFC 3261 section 19.1.6).
    let asked = match request.uri.scheme() {
        Scheme::Tel => request.uri.opaque().split(';').next(),
        _ => request.uri.user(),
    };
    let user = match &target.user {
        Some(user) => Some(user.clone()),
        None => asked.map(|user| route.rewritten(user).unwrap_or_else(|| user.to_owned())),
    };
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let port = target
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let parameters = match target.parameters.as_str() {
        "" => String::new(),
        some => format!(";{some}"),
    };
    let uri: Uri = format!("sip:{user}{host}{port}{parameters}")
        .parse()
        .map_err(|_| (500, Vec::new()))?;
    let transport = match target.transport {
        trunkline_config::Transport::Udp => Transport::Udp,
        trunkline_config::Transport::Tcp => Transport::Tcp,
    };
    let named = target.names_transport();
    Ok(destination(
        uri,
        transport,
        named,
        target.host.clone(),
        target.port,
    ))
}

/// The Request-URI's own host; never ourselves.
fn request_destination(request: &Request, path: Path) -> Result<Destination, Refused> {
    let uri = &request.uri;
    if !uri.is_sip() || uri.host().is_empty() {
        return Err((404, Vec::new()));
    }
    let port = uri.port().unwrap_or(5060);
    let host = match uri.host_ip() {
        Some(address) => Host::Address(address),
        None => Host::Name(uri.host().to_owned()),
    };
    if matches!(host, Host::Address(address) if SocketAddr::new(address, port) == path.local) {
        return Err((482, Vec::new()));
    }
    let transport = match uri.param("transport") {
        Some(name) if name.eq_ignore_ascii_case("tcp") => Transport::Tcp,
        Some(name) if !name.eq_ignore_ascii_case("udp") => return Err((404, Vec::new())),
        _ => Transport::Udp,
    };
    let named = uri.param("transport").is_some();
    let asked = uri.port();
    Ok(destination(
        uri.without_headers(),
        transport,
        named,
        host,
        asked,
    ))
}

/// `named` = the URI says the transport itself.
fn destination(
    uri: Uri,
    transport: Transport,
    named: bool,
    host: Host,
    port: Option<u16>,
) -> Destination {
    let (name, address) = match host {
        Host::Address(address) => (None, Some(SocketAddr::new(address, port.unwrap_or(5060)))),
        Host::Name(host) => {
            let transport = Some(transport).filter(|_| named);
            let name = HostName {
                host,
                port,
                transport,
            };
            (Some(name), None)
        }
    };
    Destination {
        uri,
        transport,
        name,
        address,
        others: VecDeque::new(),
    }
}

/// The name that is being looked up for a call.
fn awaited_name(call: &Call) -> Option<String> {
    let group = &call.invitation.as_ref()?.group;
    let awaited = group.iter().find(|one| one.address.is_none())?;
    Some(awaited.name.as_ref()?.host.clone())
}

impl B2bua {
    /// Tries the next group of targets; without one the caller hears why nobody answered.
    pub(super) fn next_group(&mut self, call: &mut Call, now: &Moment) {
        let Some(invitation) = &mut call.invitation else {
            return;
        };
        if let Some(group) = invitation.groups.pop_front() {
            (invitation.group, invitation.reroutes) = (group, true);
            call.phase = Phase::Preparing;
            (call.connect_deadline, call.ring_deadline) = (None, None);
            call.negotiation.reopen();
            return self.look_up(call, now);
        }
        match invitation.failure.take() {
            Some(Failure {
                response: Some(response),
                ..
            }) => self.pass_failure(call, &response, now),
            Some(failure) => {
                // RFC 3261 section 16.7: what could not be sent is no overload of ours.
                let status = match failure.status {
                    503 => 500,
                    other => other,
                };
                self.fail_call(call, status, failure.why, now);
            }
            None => self.fail_call(call, 500, "no target", now),
        }
    }

    /// Asks for the next address of the group that is not known; when all are, prepares it.
    fn look_up(&mut self, call: &mut Call, now: &Moment) {
        let key = call.key;
        let Some(invitation) = &mut call.invitation else {
            return;
        };
        let unknown = invitation.group.iter().find(|one| one.address.is_none());
        if let Some(name) = unknown.and_then(|one| one.name.clone()) {
            return self.lookups.push(Lookup {
                call: key,
                host: name.host,
                port: name.port,
                transport: name.transport,
            });
        }
        self.prepare(call, now);
    }

    /// A host name was looked up: the hops to try, in order; none = nobody is there.
    pub fn looked_up(&mut self, call: u64, hops: &[Hop], now: &Moment) {
        if self.siprec.owns_lookup(call) {
            let (client, mut context) = self.recorders(now);
            client.looked_up(call, hops, &mut context);
            return self.deliver_orders(now);
        }
        self.with_call(call, now, |b2bua, call| {
            if let Some(name) = awaited_name(call) {
                for hop in hops {
                    b2bua.note_target(&name, hop.address.ip());
                }
            }
            if call.phase != Phase::Preparing {
                return;
            }
            let Some(invitation) = &mut call.invitation else {
                return;
            };
            let group = &mut invitation.group;
            let Some(index) = group.iter().position(|one| one.address.is_none()) else {
                return;
            };
            match hops.split_first() {
                Some((first, others)) => group[index].take_hop(*first, others),
                None => {
                    group.remove(index);
                    note_failure(call, local(503, "the target's name does not resolve"));
                }
            }
            b2bua.look_up(call, now);
        });
    }

    /// All addresses of the group are known: asks the dataplane for ports, the first time.
    fn prepare(&mut self, call: &mut Call, now: &Moment) {
        let Some(invitation) = &call.invitation else {
            return;
        };
        let Some(first) = invitation.group.iter().find_map(|one| one.address) else {
            return self.group_failed(call, now);
        };
        if call.media.open.is_empty() {
            let caller_media = call.offer.as_ref().and_then(Heard::address);
            let caller = caller_media.unwrap_or(call.leg(Side::Caller).remote.ip());
            let interface = match self.interfaces(caller, first.ip()) {
                [Some(caller), Some(callee)] => [caller, callee],
                // The offer names an address family that we have no media for.
                [None, _] if caller_media.is_some() => {
                    let why = "no media interface of the offer's family";
                    return self.fail_call(call, 488, why, now);
                }
                _ => {
                    note_failure(call, local(503, "no media interface of the party's family"));
                    return self.group_failed(call, now);
                }
            };
            call.media.interface = interface;
        }
        let Some(offer) = call.offer.take() else {
            // Late offer: ports are asked for when the far side has made its offer. Another target:
            // they are there.
            return self.ring(call, now);
        };
        if let Err(error) = call.negotiation.offer(Side::Caller, offer) {
            return self.fail_call(call, error.status(), &error.to_string(), now);
        }
        call.leg_mut(Side::Callee).remote = first;
        if call.transfer_of.is_some() {
            // Its ports are those of the call that it rings for.
            return self.ring(call, now);
        }
        call.media.open = call.negotiation.wanted_media(&[]);
        let command = call.media.open_command();
        let then = Box::new(Step::Invite);
        self.batch(call, vec![command], Step::Describe { then }, now);
    }

    /// Ports are there: INVITEs go to all of the group.
    pub(super) fn ring(&mut self, call: &mut Call, now: &Moment) {
        if self.recorders_hold(call, now) {
            return;
        }
        let address = self.media_address(call, Side::Callee);
        let sdp = call.negotiation.write_offer(&call.media, address);
        let group = match &mut call.invitation {
            Some(invitation) => std::mem::take(&mut invitation.group),
            None => return,
        };
        call.phase = Phase::Inviting;
        call.at_once = group.len();
        for destination in group {
            let policy = SessionPolicy::default();
            let sent = self.send_invite(call, &destination, sdp.as_deref(), policy, now);
            if let Err(why) = sent
                && !self.ring_other(call, destination, sdp.as_deref(), now)
            {
                note_failure(call, local(503, why));
            }
        }
        if !call.branches.iter().any(Branch::rings) {
            return self.group_failed(call, now);
        }
        self.await_progress(call, now);
        let ring = Duration::from_secs(u64::from(call.route.ring_timeout_s));
        call.ring_deadline = Some(now.instant + ring);
    }

    /// A target refused, or is known not to answer.
    pub(super) fn branch_failed(&mut self, call: &mut Call, failure: Failure, now: &Moment) {
        let declined = failure.status >= 600;
        note_failure(call, failure);
        if declined {
            // A person's no for all targets (RFC 3261 section 16.7).
            self.cancel_branches(call, None, |_| true, now);
        }
        if !call.branches.iter().any(Branch::rings) {
            self.group_failed(call, now);
        }
    }

    /// Nobody of the group is left: the next one, where its failures allow that.
    fn group_failed(&mut self, call: &mut Call, now: &Moment) {
        if let Some(invitation) = &mut call.invitation
            && !invitation.reroutes
        {
            invitation.groups.clear();
        }
        self.next_group(call, now);
    }

    /// An INVITE of ours got no final response.
    pub(super) fn branch_unanswered(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        status: u16,
        now: &Moment,
    ) {
        let Some(index) = call.branches.iter().position(|one| one.client == tx) else {
            return;
        };
        self.forget_early(call, index);
        let branch = &mut call.branches[index];
        let wanted = branch.rings();
        branch.over = true;
        let sip_call_id = branch.sent.headers.call_id().unwrap_or_default();
        self.ledger.unanswered(call, &sip_call_id, status, now);
        if call.phase == Phase::Inviting && wanted {
            if self.try_other(call, index, now) {
                return;
            }
            return self.branch_failed(call, local(status, "no answer from the target"), now);
        }
        self.note_branches_over(call);
    }

    /// CANCEL to those that still ring.
    pub(super) fn cancel_branches(
        &mut self,
        call: &mut Call,
        reason: Option<&str>,
        choose: impl Fn(&Branch) -> bool,
        now: &Moment,
    ) {
        for branch in call
            .branches
            .iter()
            .filter(|one| one.rings() && choose(one))
        {
            let sip_call_id = branch.sent.headers.call_id().unwrap_or_default();
            self.ledger.cancelled(call, &sip_call_id, reason);
        }
        let headers: Vec<(&str, &str)> = reason.iter().map(|text| ("Reason", *text)).collect();
        for branch in &mut call.branches {
            if branch.rings() && choose(branch) {
                branch.cancelled = true;
                let sent = self.endpoint.cancel(now.instant, branch.client, &headers);
                branch.over = sent.is_err();
            }
        }
    }

    /// A call that nobody answered is over for the far side when all of our INVITEs are.
    pub(super) fn note_branches_over(&mut self, call: &mut Call) {
        let unanswered = call.leg(Side::Callee).dialog.is_none();
        if call.phase == Phase::Ending && unanswered && call.branches.iter().all(|one| one.over) {
            call.leg_mut(Side::Callee).over = true;
        }
    }

    /// No provisional response in time: those targets are dead.
    pub(super) fn give_up_silent(&mut self, call: &mut Call, now: &Moment) {
        self.give_up_on(call, |branch| !branch.proceeding, 408, now);
    }

    /// Nobody took the call in time.
    pub(super) fn give_up_ringing(&mut self, call: &mut Call, now: &Moment) {
        self.give_up_on(call, |_| true, 480, now);
    }

    fn give_up_on(
        &mut self,
        call: &mut Call,
        choose: impl Fn(&Branch) -> bool,
        status: u16,
        now: &Moment,
    ) {
        let hit = |branch: &Branch| branch.rings() && choose(branch);
        let given_up: Vec<usize> = (0..call.branches.len())
            .filter(|index| hit(&call.branches[*index]))
            .collect();
        if call.phase != Phase::Inviting || given_up.is_empty() {
            return;
        }
        let why = match status {
            408 => "no answer from the target",
            _ => "nobody answered",
        };
        let reason = format!("SIP;cause={status};text=\"{why}\"");
        self.cancel_branches(call, Some(&reason), choose, now);
        // Where nothing was heard at all, another address of the same target may do better.
        let left = given_up
            .into_iter()
            .filter(|index| status != 408 || !self.try_other(call, *index, now))
            .count();
        if left > 0 {
            self.branch_failed(call, local(status, why), now);
        }
    }
}

/// A failure that we found out ourselves.
fn local(status: u16, why: &'static str) -> Failure {
    Failure {
        status,
        response: None,
        why,
    }
}

/// Keeps the best failure for the caller, and whether the next group may be tried.
fn note_failure(call: &mut Call, failure: Failure) {
    let Some(invitation) = &mut call.invitation else {
        return;
    };
    // No answer within the ringing time is a time-out like any other.
    let code = match (&failure.response, failure.status) {
        (None, 480) => 408,
        (_, status) => status,
    };
    invitation.reroutes &= call.route.reroute_on.contains(&code);
    let better = invitation
        .failure
        .as_ref()
        .is_none_or(|old| failure.rank() <= old.rank());
    if better {
        invitation.failure = Some(failure);
    }
}
