//! The answering end.

use std::net::SocketAddr;

use tokio::sync::oneshot;
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::{ServerTx, Transport};

use super::{CallPlan, CalleeOutcome, CalleeSlot, Context, answer_in_dialog, send_bye};
use crate::sip::session::{CONTENT_TYPE, describe, far_address};
use crate::sip::{CallEvent, CallEvents, Dialog};

/// Answers one call and sees it through.
pub(crate) async fn answer(
    context: Context,
    slot: CalleeSlot,
    invite: Request,
    tx: ServerTx,
    events: CallEvents,
) {
    let CalleeSlot {
        plan,
        hang_up,
        outcome,
    } = slot;
    let call_id = invite.headers.call_id().unwrap_or_default();
    let opened = context
        .media
        .open(plan.callee_stream, plan.stream(false, &context.options))
        .await;
    let failure = match opened {
        Ok(media) => {
            let description = describe(media, plan.number);
            let mut callee = Callee {
                context: &context,
                plan: &plan,
                events,
                description,
            };
            callee
                .run(&invite, tx, hang_up)
                .await
                .err()
                .unwrap_or_default()
        }
        Err(error) => {
            context.agent.respond(tx, Response::to(&invite, 500));
            format!("no socket for RTP: {error}")
        }
    };
    let report = context.media.close(plan.callee_stream).await;
    context.agent.close_call(&call_id);
    // The calling end may have given up; its result says so.
    let _ = outcome.send(CalleeOutcome { failure, report });
}

struct Callee<'a> {
    context: &'a Context,
    plan: &'a CallPlan,
    events: CallEvents,
    /// Our session description.
    description: String,
}

impl Callee<'_> {
    async fn run(
        &mut self,
        invite: &Request,
        tx: ServerTx,
        hang_up: oneshot::Receiver<()>,
    ) -> Result<(), String> {
        let agent = &self.context.agent;
        let contact = format!("<sip:rtpgen@{}>", agent.local());
        let transport = match invite.headers.via() {
            Ok(via) if via.transport.eq_ignore_ascii_case("TCP") => Transport::Tcp,
            _ => Transport::Udp,
        };
        let far = far_address(&invite.body);
        let Ok(far) = far else {
            agent.respond(tx, Response::to(invite, 488));
            return far
                .map(|_| ())
                .map_err(|why| format!("the offer that arrived: {why}"));
        };
        let dialog = Dialog::of_callee(invite, &agent.local_tag(tx), &contact, transport);
        let Some(mut dialog) = dialog else {
            agent.respond(tx, Response::to(invite, 400));
            return Err("the INVITE that arrived has no usable Contact".to_owned());
        };
        agent.respond(tx, Response::to(invite, 180).with("Contact", &contact));
        if !self.ring(invite, tx).await? {
            return Ok(());
        }
        let mut response = Response::to(invite, 200).with("Contact", &contact);
        response.set_body(CONTENT_TYPE, self.description.clone());
        agent.respond(tx, response);
        self.talk(far, &contact, &mut dialog, hang_up).await
    }

    /// Rings; `false` when the call was cancelled.
    async fn ring(&mut self, invite: &Request, tx: ServerTx) -> Result<bool, String> {
        let until = tokio::time::sleep(self.context.options.ring);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return Ok(true),
                event = self.events.recv() => match event {
                    Some(CallEvent::Cancel) => {
                        self.context.agent.respond(tx, Response::to(invite, 487));
                        return Ok(false);
                    }
                    Some(_) => {}
                    None => return Err("the run ended".to_owned()),
                },
            }
        }
    }

    /// From the 200 to the end. Sound starts with the ACK.
    async fn talk(
        &mut self,
        far: SocketAddr,
        contact: &str,
        dialog: &mut Dialog,
        mut hang_up: oneshot::Receiver<()>,
    ) -> Result<(), String> {
        let stream = self.plan.callee_stream;
        let mut acknowledged = false;
        let mut orders_open = true;
        loop {
            tokio::select! {
                order = &mut hang_up, if orders_open => {
                    orders_open = false;
                    if order.is_ok() {
                        return send_bye(&self.context.agent, dialog, &mut self.events, contact).await;
                    }
                }
                event = self.events.recv() => match event {
                    Some(CallEvent::Ack) if !acknowledged => {
                        acknowledged = true;
                        self.context.media.send_to(stream, far);
                    }
                    Some(CallEvent::Request(tx, request)) => {
                        let mover = |far| self.context.media.send_to(stream, far);
                        answer_in_dialog(
                            &self.context.agent, tx, &request, contact, &self.description, mover,
                        );
                        if request.method == Method::Bye {
                            return Ok(());
                        }
                    }
                    Some(CallEvent::NoAck) => return Err("no ACK came for the 200".to_owned()),
                    Some(_) => {}
                    None => return Err("the run ended".to_owned()),
                },
            }
        }
    }
}
