//! REFER (RFC 3515): judged, accepted, and the transfer it asks for begun.

use trunkline_link::message::Side;
use trunkline_sip::message::{Headers, Method, Replaces, Request, Scheme, Uri};
use trunkline_sip::transaction::ServerTx;

use super::super::{B2bua, awareness};
use crate::call::transfer::Subscription;
use crate::call::{Call, Phase};
use crate::clock::Moment;

/// A call has at most so many legs; more transfers are declined.
const LEGS_MAX: usize = 16;

/// Headers that the URI in Refer-To may add to the new INVITE, beside X- headers (RFC 3261 section
/// 19.1.5 leaves the choice).
const ADDED: [&str; 3] = ["User-to-User", "Subject", "Accept-Contact"];

/// Where a party is to be transferred to.
#[derive(Debug)]
pub(in crate::b2bua) struct Referral {
    /// The target, without headers.
    pub target: Uri,
    /// Who asked for it (RFC 3892).
    pub referred_by: Option<String>,
    /// Headers for the new INVITE.
    pub added: Vec<(String, String)>,
    /// The dialog whose party is meant (attended transfer).
    pub replaces: Option<Replaces>,
}

impl Referral {
    /// To a URI with the headers it carries.
    pub fn to(uri: &Uri) -> Result<Self, u16> {
        if !matches!(uri.scheme(), Scheme::Sip | Scheme::Tel | Scheme::Urn) {
            return Err(416);
        }
        let mut added = Vec::new();
        let mut replaces = None;
        for (name, value) in uri.headers() {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("Replaces") {
                replaces = Some(Replaces::parse(&value).map_err(|_| 400_u16)?);
            } else if name.to_ascii_lowercase().starts_with("x-") || ADDED.into_iter().any(is) {
                added.push((name, value));
            }
        }
        Ok(Self {
            target: uri.without_headers(),
            referred_by: None,
            added,
            replaces,
        })
    }

    fn read(request: &Request) -> Result<Self, u16> {
        let targets = request.headers.addresses("Refer-To").map_err(|_| 400_u16)?;
        let [target] = targets.as_slice() else {
            return Err(400);
        };
        let method = target.uri.param("method");
        if method.is_some_and(|method| !method.eq_ignore_ascii_case("INVITE")) {
            return Err(603);
        }
        let mut referral = Self::to(&target.uri)?;
        referral.referred_by = request
            .headers
            .get("Referred-By")
            .map(std::borrow::Cow::into_owned);
        Ok(referral)
    }
}

/// Whether the sender of a REFER wants to hear nothing more of it (RFC 4488).
fn wants_silence(headers: &Headers) -> bool {
    headers.get("Refer-Sub").is_some_and(|value| {
        let value = value.split(';').next().unwrap_or_default();
        value.trim().eq_ignore_ascii_case("false")
    })
}

impl B2bua {
    pub(in crate::b2bua) fn on_refer(
        &mut self,
        call: &mut Call,
        side: Side,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) {
        let referral = match self.judge_refer(call, side, request) {
            Ok(referral) => referral,
            Err(status) => return self.reply(call, side, tx, request, status, now),
        };
        let silent = wants_silence(&request.headers);
        let mut accepted = self.dialog_response(call, side, request, 202);
        if silent {
            accepted.headers.set("Refer-Sub", "false");
        }
        if let Some(dialog) = &call.leg(side).dialog {
            accepted.headers.set("Contact", dialog.contact());
        }
        self.respond(tx, accepted, now);
        if !silent {
            let leg = call.leg_mut(side);
            // The dialog's first REFER goes without a number, which some would not understand.
            let number = request.headers.cseq().ok().map(|cseq| cseq.number);
            let id = number.filter(|_| leg.subscription.is_some());
            leg.subscription = Some(Box::new(Subscription::new(id)));
        }
        self.begin_transfer(call, side, referral, now);
        self.tell_subscribers(call, now);
    }

    fn judge_refer(&self, call: &Call, side: Side, request: &Request) -> Result<Referral, u16> {
        let referral = Referral::read(request)?;
        let subscription = call.leg(side).subscription.as_ref();
        let busy = call.transfer.is_some() || subscription.is_some_and(|one| !one.over);
        if call.phase != Phase::Answered || busy || call.consulted_by.is_some() {
            return Err(491);
        }
        if !self.may_transfer(call) {
            return Err(603);
        }
        Ok(referral)
    }

    /// Whether the call may get another leg.
    pub(super) fn may_transfer(&self, call: &Call) -> bool {
        call.object.legs.len() < LEGS_MAX
    }
}

/// What a request may require of us.
pub(in crate::b2bua) fn understood(method: &Method, option: &str) -> bool {
    let options: &[&str] = match method {
        Method::Refer => &["norefersub"],
        Method::Invite => &["replaces", "timer", "100rel", "siprec", awareness::OPTION],
        Method::Update => &["timer", "siprec", awareness::OPTION],
        _ => &["siprec"],
    };
    options
        .iter()
        .any(|known| known.eq_ignore_ascii_case(option))
}
