//! The calling end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use trunkline_sip::message::{Method, Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, Transport};

use super::{
    CallPlan, CalleeHandle, CalleeOutcome, Context, DRAIN, END_TIMEOUT, answer_in_dialog,
    milliseconds, send_bye, stopped,
};
use crate::media::StreamReport;
use crate::options::Hangup;
use crate::report::{CallResult, EndResult};
use crate::sip::session::{CONTENT_TYPE, describe, far_address};
use crate::sip::{CallEvent, CallEvents, Dialog};

/// Places one call and sees it through. `callee` is the line to the answering end if it is here.
pub(crate) async fn place(
    context: Context,
    plan: CallPlan,
    to: Uri,
    hop: (Transport, SocketAddr),
    mut callee: Option<CalleeHandle>,
) -> CallResult {
    let (tag, call_id) = context.agent.new_ids();
    let mut result = CallResult {
        call: plan.number,
        call_id: call_id.clone(),
        ..CallResult::default()
    };
    let events = context.agent.open_call(&call_id);
    let opened = context
        .media
        .open(plan.caller_stream, plan.stream(true, &context.options))
        .await;
    let mut own = StreamReport::default();
    match opened {
        Ok(address) => {
            let description = describe(address, plan.number);
            let (context, plan) = (&context, &plan);
            let mut caller = Caller {
                context,
                plan,
                events,
                hop,
                tag,
                call_id,
                description,
            };
            if let Err(failure) = caller.run(&to, &mut result, &mut callee).await {
                result.failure = failure;
            }
            own = context.media.close(plan.caller_stream).await;
            judge(context, plan, &mut result, &own, callee).await;
        }
        Err(error) => result.failure = format!("no socket for RTP: {error}"),
    }
    context.agent.close_call(&result.call_id);
    result.ok = result.failure.is_empty();
    // An end that never came to be is shown by its counts.
    result
        .caller
        .get_or_insert_with(|| EndResult::new(&own, None, plan.callee_hz));
    result
}

/// Adds both ends' media to the result, and the first thing wrong with them.
async fn judge(
    context: &Context,
    plan: &CallPlan,
    result: &mut CallResult,
    own: &StreamReport,
    callee: Option<CalleeHandle>,
) {
    let Some(callee) = callee else {
        let end = EndResult::new(own, None, plan.callee_hz);
        if result.failure.is_empty() && end.received == 0 {
            result.failure = "the caller heard nothing".to_owned();
        }
        result.caller = Some(end);
        return;
    };
    // An answering end that was never rung has dropped its side, or never will take it.
    drop(callee.hang_up);
    let wait = if result.status == 200 {
        END_TIMEOUT
    } else {
        Duration::from_secs(1)
    };
    let outcome = tokio::time::timeout(wait, callee.outcome).await;
    let answered = result.status == 200;
    let outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        _ if answered => CalleeOutcome {
            failure: "the call did not reach (or did not end at) the answering end here".to_owned(),
            report: context.media.close(plan.callee_stream).await,
        },
        _ => CalleeOutcome::default(),
    };
    let caller_end = EndResult::new(own, Some(outcome.report.sent), plan.callee_hz);
    let callee_end = EndResult::new(&outcome.report, Some(own.sent), plan.caller_hz);
    if result.failure.is_empty() {
        result.failure = outcome.failure;
    }
    for (name, end) in [("caller", &caller_end), ("callee", &callee_end)] {
        if answered && result.failure.is_empty() {
            let tones = context.options.sound.is_none();
            result.failure = media_failure(name, end, tones);
        }
    }
    result.caller = Some(caller_end);
    result.callee = answered.then_some(callee_end);
}

/// What is wrong with what an end heard; empty when nothing is. Lost packets are reported and no
/// failure by themselves.
fn media_failure(name: &str, end: &EndResult, tones: bool) -> String {
    if end.expected >= 10 && end.received == 0 {
        return format!("the {name} heard nothing");
    }
    // Too short to have held a window of tone.
    if !tones || end.expected < 10 || end.heard_right_tone() {
        return String::new();
    }
    match end.other_tone_hz {
        0 => format!(
            "the {name} heard {} Hz in {} windows and something else in {}",
            end.tone_hz, end.tone_right, end.tone_wrong
        ),
        other => format!("the {name} heard {other} Hz instead of {} Hz", end.tone_hz),
    }
}

struct Caller<'a> {
    context: &'a Context,
    plan: &'a CallPlan,
    events: CallEvents,
    hop: (Transport, SocketAddr),
    tag: String,
    call_id: String,
    /// Our session description.
    description: String,
}

impl Caller<'_> {
    async fn run(
        &mut self,
        to: &Uri,
        result: &mut CallResult,
        callee: &mut Option<CalleeHandle>,
    ) -> Result<(), String> {
        let invite = self.invite(to);
        let target = self.context.agent.target(self.hop.0, self.hop.1);
        let begin = Instant::now();
        let tx = self
            .context
            .agent
            .send(&self.call_id, invite.clone(), &target)
            .map_err(|error| format!("the INVITE could not be sent: {error}"))?;
        let response = self.await_answer(tx, begin, result).await?;
        result.setup_ms = milliseconds(begin);
        let contact = self.contact();
        let mut dialog = Dialog::of_caller(&invite, &response, &contact, self.hop.0)
            .ok_or("the 200 has no usable Contact")?;
        let hop = dialog
            .next_hop()
            .ok_or("the 200's Contact is not an address")?;
        let target = self.context.agent.target(hop.0, hop.1);
        let ack = dialog.request(Method::Ack);
        self.context
            .agent
            .send_ack(tx, ack, &target)
            .map_err(|error| format!("the ACK could not be sent: {error}"))?;
        let answered = Instant::now();
        let far = far_address(&response.body);
        if let Ok(far) = far {
            self.context.media.send_to(self.plan.caller_stream, far);
            self.talk(result, answered).await;
        }
        self.end(result, answered, &mut dialog, callee).await?;
        far.map(|_| ())
    }

    fn contact(&self) -> String {
        let parameter = match self.hop.0 {
            Transport::Udp => "",
            Transport::Tcp | Transport::Tls => ";transport=tcp",
        };
        format!("<sip:rtpgen@{}{parameter}>", self.context.agent.local())
    }

    fn invite(&self, to: &Uri) -> Request {
        let (user, number) = (&self.context.options.from_user, self.plan.number);
        let from = format!(
            "<sip:{user}{number}@{}>;tag={}",
            self.context.agent.local(),
            self.tag
        );
        Request::new(Method::Invite, to.clone())
            .with("From", from)
            .with("To", format!("<{to}>"))
            .with("Call-ID", &self.call_id)
            .with("CSeq", "1 INVITE")
            .with("Contact", self.contact())
            .with("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE")
            .with_body(CONTENT_TYPE, self.description.clone())
    }

    /// Waits for the final response; cancels when that takes too long or the run is stopped.
    async fn await_answer(
        &mut self,
        tx: ClientTx,
        begin: Instant,
        result: &mut CallResult,
    ) -> Result<Response, String> {
        let timeout = tokio::time::sleep(self.context.options.answer_timeout);
        tokio::pin!(timeout);
        let mut stop = self.context.stop.clone();
        let mut cancelled = None;
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(CallEvent::Response(of, response)) if of == tx => {
                        if response.is_final() {
                            result.status = response.status;
                            if response.is_success() {
                                return Ok(response);
                            }
                            let reason = response.reason_text().into_owned();
                            let why = cancelled.unwrap_or("refused");
                            return Err(format!("{why}: {} {reason}", response.status));
                        }
                        if response.status > 100 && result.ringing_ms == 0.0 {
                            result.ringing_ms = milliseconds(begin);
                        }
                    }
                    Some(CallEvent::Failed(_)) | None => {
                        return Err(cancelled.unwrap_or("no answer to the INVITE").to_owned());
                    }
                    Some(_) => {}
                },
                () = &mut timeout => {
                    if let Some(why) = cancelled {
                        return Err(format!("{why}, and no end came of the CANCEL"));
                    }
                    cancelled = Some("not answered in time");
                    timeout.as_mut().reset((Instant::now() + END_TIMEOUT).into());
                    self.context.agent.cancel(tx);
                }
                () = stopped(&mut stop), if cancelled.is_none() => {
                    cancelled = Some("interrupted before the answer");
                    timeout.as_mut().reset((Instant::now() + END_TIMEOUT).into());
                    self.context.agent.cancel(tx);
                }
            }
        }
    }

    /// Lets the call last. Returns early when the far end hangs up or the run is stopped.
    async fn talk(&mut self, result: &mut CallResult, answered: Instant) {
        let length = self.plan.length.saturating_sub(DRAIN);
        let until = tokio::time::sleep_until((answered + length).into());
        tokio::pin!(until);
        let mut stop = self.context.stop.clone();
        loop {
            tokio::select! {
                () = &mut until => return,
                () = stopped(&mut stop) => return,
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    if self.answer_request(event) == Some(Method::Bye) {
                        result.duration_ms = milliseconds(answered);
                        "far end".clone_into(&mut result.ended_by);
                        return;
                    }
                }
            }
        }
    }

    /// Answers a request within the dialog and says which it was.
    fn answer_request(&self, event: CallEvent) -> Option<Method> {
        let CallEvent::Request(tx, request) = event else {
            return None;
        };
        let mover = |far| self.context.media.send_to(self.plan.caller_stream, far);
        answer_in_dialog(
            &self.context.agent,
            tx,
            &request,
            &self.contact(),
            &self.description,
            mover,
        );
        Some(request.method)
    }

    /// Ends the call: both ends fall silent first, so that what is lost was lost on the way.
    async fn end(
        &mut self,
        result: &mut CallResult,
        answered: Instant,
        dialog: &mut Dialog,
        callee: &mut Option<CalleeHandle>,
    ) -> Result<(), String> {
        self.context.media.quiet(self.plan.caller_stream);
        self.context.media.quiet(self.plan.callee_stream);
        if !result.ended_by.is_empty() {
            return Err("the far end hung up before its time".to_owned());
        }
        tokio::time::sleep(DRAIN).await;
        result.duration_ms = milliseconds(answered);
        let callee_ends = match self.context.options.hangup {
            Hangup::Caller => false,
            Hangup::Callee => true,
            Hangup::Alternate => self.plan.number % 2 == 1,
        };
        let begin = Instant::now();
        if callee_ends && let Some(handle) = callee.take() {
            "callee".clone_into(&mut result.ended_by);
            let CalleeHandle { hang_up, outcome } = handle;
            let ordered = hang_up.send(()).is_ok();
            let (unused, _) = oneshot::channel();
            *callee = Some(CalleeHandle {
                hang_up: unused,
                outcome,
            });
            if !ordered {
                return Err("the answering end is gone".to_owned());
            }
            self.await_bye().await?;
        } else {
            "caller".clone_into(&mut result.ended_by);
            self.hang_up(dialog).await?;
        }
        result.teardown_ms = milliseconds(begin);
        Ok(())
    }

    async fn await_bye(&mut self) -> Result<(), String> {
        let bye = async {
            while let Some(event) = self.events.recv().await {
                if self.answer_request(event) == Some(Method::Bye) {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(END_TIMEOUT, bye).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err("no BYE came after the callee hung up".to_owned()),
        }
    }

    async fn hang_up(&mut self, dialog: &mut Dialog) -> Result<(), String> {
        let contact = dialog.contact.clone();
        send_bye(&self.context.agent, dialog, &mut self.events, &contact).await
    }
}
