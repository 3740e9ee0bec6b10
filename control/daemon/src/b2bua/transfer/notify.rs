//! What the transferor is told (NOTIFY with a sipfrag, RFC 3515 section 2.4.5), and its BYE.

use std::time::Duration;

use trunkline_link::message::Side;
use trunkline_sinks::object::CallState;
use trunkline_sip::message::{Method, Request};
use trunkline_sip::transaction::{ClientTx, ServerTx};

use super::super::end::bye;
use super::super::{B2bua, CatalogWrite, ClientUse, headers};
use crate::call::transfer::Departing;
use crate::call::{Call, Leg};
use crate::clock::Moment;

/// So long a transferor's BYE waits until the outcome was told.
const NOTIFY_PATIENCE: Duration = Duration::from_secs(4);

impl B2bua {
    /// The transferor is told how the new call goes.
    pub(super) fn tell_leaving(&mut self, call: &mut Call, status: u16, now: &Moment) {
        let Some(leaving) = call.transfer.as_ref().map(|one| one.leaving) else {
            return;
        };
        self.tell(call.leg_mut(leaving), status);
        self.tell_subscribers(call, now);
    }

    /// Has a leg's subscriber told next; what it was to be told before that is old.
    pub(super) fn tell(&mut self, leg: &mut Leg, status: u16) {
        if let Some(subscription) = &mut leg.subscription
            && !subscription.over
        {
            subscription.queued = Some(status);
        }
    }

    /// Sends the NOTIFYs that are due, and the BYEs of those that have heard all.
    pub(in crate::b2bua) fn tell_subscribers(&mut self, call: &mut Call, now: &Moment) {
        let mut sent = Vec::new();
        for leg in call.all_legs() {
            let target = leg.target();
            let Some(subscription) = &mut leg.subscription else {
                continue;
            };
            if subscription.over || subscription.client.is_some() {
                continue;
            }
            let Some(status) = subscription.queued.take() else {
                continue;
            };
            let dialog = subscription.dialog.as_mut().or(leg.dialog.as_mut());
            let notify =
                dialog.and_then(|dialog| dialog.refer_notify(subscription.id, status, None).ok());
            let client = notify.and_then(|mut notify| {
                notify.headers.set("User-Agent", headers::SERVER);
                self.endpoint
                    .send_request(now.instant, notify, &target)
                    .ok()
            });
            subscription.told = status;
            subscription.client = client;
            subscription.over = client.is_none();
            sent.extend(client);
        }
        for client in sent {
            self.own_client(call, client, ClientUse::Notify);
        }
        self.see_off(call, now);
    }

    /// A NOTIFY was answered, or will not be: `status` is 408 then.
    pub(in crate::b2bua) fn on_notify_answered(
        &mut self,
        call: &mut Call,
        tx: ClientTx,
        status: u16,
        now: &Moment,
    ) {
        self.clients.remove(&tx);
        let subscriptions = call.all_legs().filter_map(|leg| leg.subscription.as_mut());
        for subscription in subscriptions.filter(|one| one.client == Some(tx)) {
            subscription.client = None;
            // A subscriber that refuses wants no more (RFC 6665 section 4.2.2).
            subscription.over |= subscription.told >= 200 || status >= 300;
        }
        self.tell_subscribers(call, now);
    }

    /// A leg leaves the call.
    pub(super) fn depart(&mut self, call: &mut Call, leg: Leg, now: &Moment) {
        call.departing.push(Departing {
            leg,
            bye: None,
            deadline: Some(now.instant + NOTIFY_PATIENCE),
        });
    }

    /// BYE to those that have heard all, or do not answer.
    pub(in crate::b2bua) fn see_off(&mut self, call: &mut Call, now: &Moment) {
        let mut sent = Vec::new();
        for departing in &mut call.departing {
            let leg = &mut departing.leg;
            let told = leg.subscription.as_ref().is_none_or(|one| one.over);
            let late = departing.deadline.is_some_and(|due| due <= now.instant);
            if late {
                departing.deadline = None;
            }
            if leg.over || departing.bye.is_some() || !(told || late) {
                continue;
            }
            departing.deadline = None;
            let reason = "SIP;cause=200;text=\"transferred\"".to_owned();
            departing.bye = bye(leg, Some(reason)).and_then(|(request, target)| {
                self.endpoint
                    .send_request(now.instant, request, &target)
                    .ok()
            });
            leg.over = departing.bye.is_none();
            sent.extend(departing.bye);
        }
        for client in sent {
            self.own_client(call, client, ClientUse::Departure);
        }
        for departing in call.departing.extract_if(.., |one| one.leg.is_done()) {
            if let Some(dialog) = &departing.leg.dialog {
                self.dialogs.remove(&dialog.id());
            }
        }
    }

    /// The BYE to a leg that left was answered, or will not be.
    pub(in crate::b2bua) fn on_departed(&mut self, call: &mut Call, tx: ClientTx, now: &Moment) {
        self.clients.remove(&tx);
        for departing in call.departing.iter_mut().filter(|one| one.bye == Some(tx)) {
            departing.leg.over = true;
            if let Some(subscription) = &mut departing.leg.subscription {
                subscription.over = true;
            }
        }
        self.see_off(call, now);
        self.save(call);
    }

    /// A request in the dialog of a leg that left.
    pub(in crate::b2bua) fn on_departing_request(
        &mut self,
        call: &mut Call,
        index: usize,
        tx: ServerTx,
        request: &Request,
        now: &Moment,
    ) {
        let leg = &mut call.departing[index].leg;
        let Some(dialog) = &mut leg.dialog else {
            return;
        };
        let ends = request.method == Method::Bye;
        let mut response = dialog.response(request, if ends { 200 } else { 481 });
        response.set_content_length();
        if ends {
            hang_up(leg);
        }
        self.respond(tx, response, now);
        self.see_off(call, now);
    }

    /// The transferor hangs up before its transfer has come to an end: the call goes on without it.
    pub(in crate::b2bua) fn on_transferor_gone(
        &mut self,
        call: &mut Call,
        side: Side,
        now: &Moment,
    ) {
        hang_up(call.leg_mut(side));
        call.object_leg(side).state = CallState::Ended;
        self.writes.push(CatalogWrite::Call(call.object.clone()));
        self.tell_subscribers(call, now);
        self.save(call);
    }
}

/// The peer's BYE ends a leg; what its subscription has still to say is said all the same.
fn hang_up(leg: &mut Leg) {
    leg.over = true;
    let Some(dialog) = &mut leg.dialog else {
        return;
    };
    if let Some(subscription) = &mut leg.subscription
        && !subscription.over
    {
        subscription.dialog = Some(dialog.clone());
    }
    dialog.terminate();
}
