//! Our INVITE to a target.

use std::net::SocketAddr;

use trunkline_link::message::Side;
use trunkline_sip::dialog::SessionPolicy;
use trunkline_sip::message::{Headers, Method, NameAddr, Request, Response, Uri, bracketed};
use trunkline_sip::transaction::Target;

use super::bodies::{self, Received};
use super::headers;
use super::{B2bua, ClientUse, awareness, session, session_id};
use crate::call::{Branch, Call, Destination, Leg};
use crate::clock::Moment;

impl B2bua {
    pub(super) fn send_invite(
        &mut self,
        call: &mut Call,
        destination: &Destination,
        sdp: Option<&str>,
        policy: SessionPolicy,
        now: &Moment,
    ) -> Result<(), &'static str> {
        let remote = destination.address.ok_or("no address")?;
        let transport = destination.transport;
        let (flow, local) = (self.local_to)(transport, remote)
            .ok_or("nothing listens for the target's transport")?;
        let caller_ip = call.leg(Side::Caller).remote.ip();
        let [_, interface] = self.interfaces(caller_ip, remote.ip());
        if interface != Some(call.media.interface[1]) {
            return Err("the target's media would need another interface");
        }
        let (mut request, contact) = self
            .build_invite(call, destination, local, sdp)
            .ok_or("the INVITE cannot be built")?;
        let leg = Leg {
            session_policy: policy,
            ..Leg::new(transport, flow, local, remote, contact)
        };
        session::propose(&leg, &mut request);
        awareness::pass(call, &mut request.headers);
        // Without an offer of ours the target's would come in its 18x and want its answer in PRACK.
        if sdp.is_some() {
            request.headers.append("Supported", "100rel");
        }
        let target = Target::new(transport, flow, local, remote);
        let mark = call
            .invitation
            .as_ref()
            .map(|one| self.loops.mark(&one.request, &self.config));
        let mark = mark.unwrap_or_default();
        let client = self
            .endpoint
            .send_marked(now.instant, request.clone(), &target, &mark)
            .map_err(|_| "the INVITE cannot be sent")?;
        self.own_client(call, client, ClientUse::Invitation);
        self.ledger.invited_out(call, &request, &leg, now);
        call.branches.push(Branch {
            client,
            sent: request,
            leg,
            destination: destination.clone(),
            early: Vec::new(),
            proceeding: false,
            cancelled: false,
            over: false,
        });
        let last = call.branches.len() - 1;
        self.show(call, last);
        Ok(())
    }

    /// What the API shows of the callee's leg while it has no dialog.
    fn show(&self, call: &mut Call, index: usize) {
        let branch = &call.branches[index];
        let sip_call_id = branch.sent.headers.call_id().unwrap_or_default();
        let id = self.ledger.leg_id(call, &sip_call_id);
        let transport = branch.leg.transport.param_name();
        let peer = format!("{transport}:{}", branch.leg.remote);
        let leg = call.object_leg(Side::Callee);
        if let Some(id) = id {
            leg.id = id;
        }
        (leg.sip_call_id, leg.peer) = (sip_call_id, peer);
    }

    /// The branch is whom the caller hears: the callee's leg is its.
    pub(super) fn adopt(&mut self, call: &mut Call, index: usize) {
        self.show(call, index);
        call.legs[Side::Callee as usize] = call.branches[index].leg.clone();
    }

    fn build_invite(
        &mut self,
        call: &Call,
        destination: &Destination,
        local: SocketAddr,
        sdp: Option<&str>,
    ) -> Option<(Request, Uri)> {
        let received = &call.invitation.as_ref()?.request;
        let from = received.headers.from_address().ok()?;
        let to = received.headers.to_address().ok()?;
        let ours = local.ip().to_string();
        let user = from.uri.user_decoded().map(std::borrow::Cow::into_owned);
        let our_uri = Uri::sip(user.as_deref(), &bracketed(&ours), Some(local.port())).ok()?;
        let tag = self.endpoint.new_tag();
        let mut our_from = NameAddr::new(our_uri);
        our_from.display = from.display.clone();
        let our_from = our_from.with_tag(Some(&tag));
        let mut our_to = NameAddr::new(destination.uri.without_headers());
        our_to.display = to.display.clone();
        let leaves_domain = destination
            .address
            .is_some_and(|address| !self.config.sip.allows(address.ip()));
        let hide = leaves_domain && headers::wants_privacy(&received.headers);
        let user = user.as_deref().filter(|_| !hide);
        let contact = Self::contact(user, destination.transport, local)?;
        let hops = received.headers.max_forwards().ok().flatten();
        let hops = hops.unwrap_or(70).min(255);
        let call_id = self.endpoint.new_call_id(&bracketed(&ours));
        let mut our_contact = NameAddr::new(contact.clone()).to_string();
        if let Some(role) = bodies::role_in(&received.headers) {
            our_contact = format!("{our_contact};{role}");
        }
        let breadth = max_breadth(&received.headers);
        let mut request = Request::new(Method::Invite, destination.uri.clone())
            .with("Max-Forwards", hops.saturating_sub(1).to_string())
            .with("From", our_from.to_string())
            .with("To", our_to.to_string())
            .with("Call-ID", &call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", our_contact);
        headers::cross_request(received, &mut request, &call.route);
        session_id::name_caller(call, received, &mut request);
        if call.transfer_of.is_some() {
            for name in ["Replaces", "Require"] {
                request.headers.copy(&received.headers, name);
            }
        }
        // Each of those rung at once gets its part (RFC 5393 section 5.3).
        if let Some(breadth) = breadth {
            let at_once = u32::try_from(call.at_once.max(1)).unwrap_or(1);
            let share = (breadth / at_once).max(1);
            request.headers.set("Max-Breadth", share.to_string());
        }
        headers::set_headers(&mut request, &call.route.header_policy);
        if hide {
            headers::make_anonymous(&mut request, &tag);
        }
        Received::from(received).cross_to_request(sdp, &mut request);
        Some((request, contact))
    }

    /// A target finds our session timer too short: it is asked again, once, with the one it wants (RFC
    /// 4028 section 7.4). False when that leads nowhere.
    pub(super) fn ask_for_longer(
        &mut self,
        call: &mut Call,
        index: usize,
        response: &Response,
        now: &Moment,
    ) -> bool {
        let branch = &call.branches[index];
        let first = branch.leg.session_policy == SessionPolicy::default();
        let policy = branch.leg.session_policy.after_422(response);
        let Some(policy) = policy.filter(|_| first) else {
            return false;
        };
        let destination = branch.destination.clone();
        let sdp = sent_sdp(&branch.sent);
        self.send_invite(call, &destination, sdp.as_deref(), policy, now)
            .is_ok()
    }
}

/// The description in an INVITE of ours.
pub(super) fn sent_sdp(sent: &Request) -> Option<String> {
    let sdp = Received::from(sent).sdp()?;
    Some(String::from_utf8_lossy(&sdp).into_owned())
}

/// How many targets a request may still be sent to at once (RFC 5393 section 5); `None` = not said.
pub(super) fn max_breadth(headers: &Headers) -> Option<u32> {
    headers.get("Max-Breadth")?.trim().parse().ok()
}
