//! The two ends of one call, each a task.

mod callee;
mod caller;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use trunkline_sip::message::{Method, Request, Response};
use trunkline_sip::transaction::ServerTx;

use crate::media::{Media, StreamId, StreamReport, StreamSpec};
use crate::options::CallsOptions;
use crate::sip::session::{CONTENT_TYPE, far_address};
use crate::sip::{Agent, CallEvent, CallEvents, Dialog};
use crate::tone::{self, Tone};

pub(crate) use callee::answer;
pub(crate) use caller::place;

/// How long packets may be under way when a call ends.
const DRAIN: Duration = Duration::from_millis(150);
/// How long the far end may take to end a call after it should have.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// PCMU.
const PAYLOAD_TYPE: u8 = 0;

/// What both ends of a call know of it beforehand.
#[derive(Debug, Clone)]
pub(crate) struct CallPlan {
    pub(crate) number: u32,
    pub(crate) caller_stream: StreamId,
    pub(crate) callee_stream: StreamId,
    pub(crate) caller_hz: u32,
    pub(crate) callee_hz: u32,
    /// From the answer to the hanging up.
    pub(crate) length: Duration,
}

impl CallPlan {
    pub(crate) fn new(number: u32, media: &Media, options: &CallsOptions) -> Self {
        let first = options.first_tone.wrapping_add(number.wrapping_mul(2));
        Self {
            number,
            caller_stream: media.new_id(),
            callee_stream: media.new_id(),
            caller_hz: tone::frequency_hz(first),
            callee_hz: tone::frequency_hz(first.wrapping_add(1)),
            length: options.lengths.draw(options.duration),
        }
    }

    fn stream(&self, is_caller: bool, options: &CallsOptions) -> StreamSpec {
        let both_here = options.listen.is_some();
        let tones = both_here && options.sound.is_none();
        let (send_hz, expect_hz, hears) = if is_caller {
            (self.caller_hz, self.callee_hz, self.callee_stream)
        } else {
            (self.callee_hz, self.caller_hz, self.caller_stream)
        };
        let marked = || options.marked.then(|| Arc::new(Tone::marked(send_hz)));
        StreamSpec {
            address: options.media_address,
            port: None,
            send_hz,
            sound: options.sound.clone().or_else(marked),
            expect_hz: tones.then_some(expect_hz),
            hears: both_here.then_some(hears),
            payload_type: PAYLOAD_TYPE,
            expect_payload_type: Some(PAYLOAD_TYPE),
            rtcp: options.rtcp,
        }
    }
}

/// What the answering end reports to the calling one.
#[derive(Debug, Default)]
pub(crate) struct CalleeOutcome {
    pub(crate) failure: String,
    pub(crate) report: StreamReport,
}

/// The calling end's line to the answering one.
#[derive(Debug)]
pub(crate) struct CalleeHandle {
    /// Tells it to hang up.
    pub(crate) hang_up: oneshot::Sender<()>,
    pub(crate) outcome: oneshot::Receiver<CalleeOutcome>,
}

/// The answering end's side of that line.
#[derive(Debug)]
pub(crate) struct CalleeSlot {
    pub(crate) plan: CallPlan,
    pub(crate) hang_up: oneshot::Receiver<()>,
    pub(crate) outcome: oneshot::Sender<CalleeOutcome>,
}

/// What both kinds of task work with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) options: Arc<CallsOptions>,
    pub(crate) media: Arc<Media>,
    pub(crate) agent: Arc<Agent>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// New calls as they come in from the agent.
pub(crate) type Incoming = mpsc::UnboundedReceiver<(ServerTx, Request, CallEvents)>;

/// Sends BYE and waits for its answer; a crossing BYE of the far end is answered meanwhile.
async fn send_bye(
    agent: &Arc<Agent>,
    dialog: &mut Dialog,
    events: &mut CallEvents,
    contact: &str,
) -> Result<(), String> {
    let bye = dialog.request(Method::Bye).with("Contact", contact);
    let hop = dialog.next_hop().ok_or("no address to send BYE to")?;
    let target = agent.target(hop.0, hop.1);
    let tx = agent
        .send(&dialog.call_id, bye, &target)
        .map_err(|error| format!("BYE could not be sent: {error}"))?;
    loop {
        match events.recv().await {
            Some(CallEvent::Response(of, response)) if of == tx && response.is_final() => {
                return match response.status {
                    200 => Ok(()),
                    status => Err(format!("BYE was answered {status}")),
                };
            }
            Some(CallEvent::Failed(of)) if of == tx => {
                return Err("BYE was not answered".to_owned());
            }
            Some(CallEvent::Request(server, request)) => {
                agent.respond(server, Response::to(&request, 200));
            }
            Some(_) => {}
            None => return Err("BYE was not answered".to_owned()),
        }
    }
}

/// Answers requests that may come within a call: BYE, re-INVITE and UPDATE (same description
/// again, media sent to where it says), OPTIONS, INFO.
fn answer_in_dialog(
    agent: &Arc<Agent>,
    tx: ServerTx,
    request: &Request,
    contact: &str,
    description: &str,
    move_media: impl Fn(SocketAddr),
) {
    let mut response = match request.method {
        Method::Bye | Method::Options | Method::Info | Method::Invite | Method::Update => {
            Response::to(request, 200)
        }
        _ => Response::to(request, 405).with("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE"),
    };
    if matches!(request.method, Method::Invite | Method::Update) {
        response.headers.append("Contact", contact);
        if !request.body.is_empty() || request.method == Method::Invite {
            response.set_body(CONTENT_TYPE, description);
        }
        if let Ok(far) = far_address(&request.body) {
            move_media(far);
        }
    }
    agent.respond(tx, response);
}

/// Returns when the run is told to stop, and never if nobody can tell it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
