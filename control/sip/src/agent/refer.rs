//! REFER both ways, with the subscription that it makes (RFC 3515): the outcome comes by
//! NOTIFY. It lives in the call's dialog and ends with it.

use std::time::Instant;

use super::alarms::Subject;
use super::core::Agent;
use super::event::EventKind;
use super::request::{Open, Purpose, Received};
use super::types::{AgentError, DialogHandle, RequestHandle, SubscriptionHandle, add_headers};
use crate::dialog::{DialogState, SubscriptionEnd, parse_sipfrag};
use crate::message::{Headers, Method, NameAddr, Request, Response, percent_encode_header};
use crate::transaction::ServerTx;

/// The subscription of one REFER.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    dialog: DialogHandle,
    /// We were asked, and tell the outcome; else we asked, and are told.
    reporting: bool,
    /// CSeq of the REFER, by which a further one in a dialog is told from the first.
    cseq: u32,
    first: bool,
    /// The peer wants no NOTIFY (Refer-Sub: false, RFC 4488).
    silent: bool,
    /// The last status told.
    status: u16,
    done: bool,
}

impl<C: Clone + Default> Agent<C> {
    /// Asks the peer to call somebody: blind transfer, or attended with the address that
    /// [`Agent::refer_to_replacing`] gives. Its course comes as [`EventKind::ReferProgress`],
    /// its end at latest after the configured time. The call itself goes on until hung up.
    ///
    /// # Errors
    /// The dialog is over or not answered yet.
    pub fn refer(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        refer_to: &NameAddr,
        headers: &Headers,
    ) -> Result<SubscriptionHandle, AgentError> {
        let handle = SubscriptionHandle(self.next_number());
        let leg = self.leg_mut(dialog)?;
        if leg.dialog.state() != DialogState::Confirmed {
            return Err(AgentError::State("a transfer comes after the answer"));
        }
        let mut request = leg.dialog.request(Method::Refer)?;
        leg.refers += 1;
        let first = leg.refers == 1;
        let referred_by = leg.dialog.local_address().to_owned();
        request.headers.append("Refer-To", refer_to.to_string());
        if !headers.contains("Referred-By") {
            request.headers.append("Referred-By", referred_by);
        }
        add_headers(&mut request.headers, headers);
        let cseq = request.headers.cseq().map_or(0, |cseq| cseq.number);
        self.send(now, dialog, request, Purpose::Refer(handle))?;
        let subscription = Subscription {
            dialog,
            reporting: false,
            cseq,
            first,
            silent: false,
            status: 100,
            done: false,
        };
        self.subscriptions.insert(handle, subscription);
        self.alarms.set(
            Subject::Subscription(handle),
            Some(now + self.config.refer_timeout),
        );
        Ok(handle)
    }

    /// The Refer-To of an attended transfer: the peer of `other`, with Replaces for its dialog
    /// (RFC 3891, RFC 5589).
    ///
    /// # Errors
    /// The dialog is over.
    pub fn refer_to_replacing(&self, other: DialogHandle) -> Result<NameAddr, AgentError> {
        let leg = self.leg(other)?;
        let replaces = leg.dialog.id().to_replaces().to_string();
        let target = leg.dialog.remote_target().without_headers();
        let text = format!("{target}?Replaces={}", percent_encode_header(&replaces));
        let uri = text.parse().map_err(|_| AgentError::Unreachable(text))?;
        Ok(NameAddr::new(uri))
    }

    pub(super) fn on_refer(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        tx: ServerTx,
        request: Request,
    ) {
        let named = request.headers.addresses("Refer-To").ok();
        let one = named.and_then(|mut all| (all.len() == 1).then(|| all.remove(0)));
        let Some(refer_to) = one else {
            let Some(leg) = self.legs.get(&dialog) else {
                return;
            };
            let refusal = leg.dialog.response(&request, 400);
            return self.reply(now, tx, refusal);
        };
        let open = Open::new(dialog, request.clone(), None);
        self.received.insert(tx, Received::Refer(open));
        let request_handle = RequestHandle(tx.0);
        self.tell(
            dialog,
            EventKind::Refer {
                request_handle,
                request,
                refer_to,
            },
        );
    }

    /// Takes on a transfer: 202, and a first NOTIFY (100 Trying). Tell its course by
    /// [`Agent::report`].
    ///
    /// # Errors
    /// It was answered, or its sender gave up.
    pub fn accept_refer(
        &mut self,
        now: Instant,
        request: RequestHandle,
    ) -> Result<SubscriptionHandle, AgentError> {
        let Received::Refer(open) = self.received_by(request)?.clone() else {
            return Err(AgentError::Method);
        };
        let handle = SubscriptionHandle(self.next_number());
        let tx = ServerTx(request.0);
        let leg = self.leg_mut(open.dialog)?;
        let mut accepted = leg.dialog.response(&open.request, 202);
        leg.dialog.sent_response(&open.request, 202);
        leg.refers += 1;
        let first = leg.refers == 1;
        let wish = open.request.headers.get("Refer-Sub");
        let silent = wish.is_some_and(|wish| wish.eq_ignore_ascii_case("false"));
        if silent {
            accepted.headers.append("Refer-Sub", "false");
        }
        self.received.remove(&tx);
        self.endpoint.respond(now, tx, accepted)?;
        let subscription = Subscription {
            dialog: open.dialog,
            reporting: true,
            cseq: open.request.headers.cseq().map_or(0, |cseq| cseq.number),
            first,
            silent,
            status: 100,
            done: false,
        };
        self.subscriptions.insert(handle, subscription);
        self.alarms.set(
            Subject::Subscription(handle),
            Some(now + self.config.refer_timeout),
        );
        self.report(now, handle, 100)?;
        Ok(handle)
    }

    /// Tells the peer what the call it asked for answered. A final status ends the
    /// subscription; told in time, it is the outcome the peer sees.
    ///
    /// # Errors
    /// The subscription has ended, with its dialog or by time.
    pub fn report(
        &mut self,
        now: Instant,
        subscription: SubscriptionHandle,
        status: u16,
    ) -> Result<(), AgentError> {
        self.notify(now, subscription, status, None)
    }

    fn notify(
        &mut self,
        now: Instant,
        handle: SubscriptionHandle,
        status: u16,
        end: Option<SubscriptionEnd>,
    ) -> Result<(), AgentError> {
        let gone = self.gone(handle.0);
        let own = self.subscriptions.get_mut(&handle);
        let own = own.filter(|own| own.reporting && !own.done).ok_or(gone)?;
        own.status = status;
        own.done = status >= 200 || end.is_some();
        let (dialog, silent, done) = (own.dialog, own.silent, own.done);
        let id = (!own.first).then_some(own.cseq);
        if done {
            self.alarms.set(Subject::Subscription(handle), None);
        }
        if silent {
            if done {
                self.subscriptions.remove(&handle);
            }
            return Ok(());
        }
        let request = self.leg_mut(dialog)?.dialog.refer_notify(id, status, end)?;
        self.send(now, dialog, request, Purpose::Notify(handle))?;
        Ok(())
    }

    /// The time for the outcome is over.
    pub(super) fn on_refer_alarm(&mut self, now: Instant, handle: SubscriptionHandle) {
        let Some(own) = self.subscriptions.get(&handle) else {
            return;
        };
        let (dialog, status) = (own.dialog, own.status);
        if own.reporting {
            let _ = self.notify(now, handle, status, Some(SubscriptionEnd::Timeout));
            return;
        }
        self.subscriptions.remove(&handle);
        self.tell(
            dialog,
            EventKind::ReferProgress {
                subscription: handle,
                status: None,
                done: true,
            },
        );
    }

    pub(super) fn on_refer_response(
        &mut self,
        _now: Instant,
        handle: SubscriptionHandle,
        response: &Response,
    ) {
        let Some(own) = self.subscriptions.get_mut(&handle) else {
            return;
        };
        let dialog = own.dialog;
        let unsubscribed = response
            .headers
            .get("Refer-Sub")
            .is_some_and(|value| value.eq_ignore_ascii_case("false"));
        if response.is_success() && !unsubscribed {
            return;
        }
        self.subscriptions.remove(&handle);
        self.alarms.set(Subject::Subscription(handle), None);
        let refused = !response.is_success();
        self.tell(
            dialog,
            EventKind::ReferProgress {
                subscription: handle,
                status: refused.then_some(response.status),
                done: true,
            },
        );
    }

    pub(super) fn on_notify_response(&mut self, handle: SubscriptionHandle, response: &Response) {
        let over = |own: &Subscription| own.done || matches!(response.status, 408 | 481 | 489);
        if self.subscriptions.get(&handle).is_some_and(over) {
            self.subscriptions.remove(&handle);
            self.alarms.set(Subject::Subscription(handle), None);
        }
    }

    pub(super) fn on_notify(
        &mut self,
        now: Instant,
        dialog: DialogHandle,
        tx: ServerTx,
        notify: &Request,
    ) {
        let Some(leg) = self.legs.get(&dialog) else {
            return;
        };
        let event = notify.headers.event().ok().flatten();
        let refer = event.filter(|event| event.token.eq_ignore_ascii_case("refer"));
        let Some(event) = refer else {
            let refusal = leg.dialog.response(notify, 489);
            return self.reply(now, tx, refusal);
        };
        let id = event.params.get("id").and_then(|id| id.parse::<u32>().ok());
        let named = |own: &Subscription| {
            let same = id.map_or(own.first, |id| own.cseq == id);
            own.dialog == dialog && !own.reporting && same
        };
        let found = self.subscriptions.iter().find(|(_, own)| named(own));
        let Some(handle) = found.map(|(handle, _)| *handle) else {
            let refusal = leg.dialog.response(notify, 481);
            return self.reply(now, tx, refusal);
        };
        let ok = leg.dialog.response(notify, 200);
        self.reply(now, tx, ok);
        let status = parse_sipfrag(&notify.body);
        let state = notify.headers.subscription_state().ok().flatten();
        let done = state.is_some_and(|state| state.is_terminated());
        if done {
            self.subscriptions.remove(&handle);
            self.alarms.set(Subject::Subscription(handle), None);
        }
        self.tell(
            dialog,
            EventKind::ReferProgress {
                subscription: handle,
                status,
                done,
            },
        );
    }

    /// The subscriptions of a dialog end with it; whoever awaits an outcome is told.
    pub(super) fn end_subscriptions(&mut self, dialog: DialogHandle) {
        let of_it = self
            .subscriptions
            .iter()
            .filter(|(_, own)| own.dialog == dialog);
        let mut handles: Vec<SubscriptionHandle> = of_it.map(|(handle, _)| *handle).collect();
        handles.sort_unstable();
        for handle in handles {
            self.alarms.set(Subject::Subscription(handle), None);
            let removed = self.subscriptions.remove(&handle);
            if removed.is_some_and(|own| !own.reporting) {
                self.tell(
                    dialog,
                    EventKind::ReferProgress {
                        subscription: handle,
                        status: None,
                        done: true,
                    },
                );
            }
        }
    }
}
