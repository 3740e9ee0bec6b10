//! What the API asks of the core, and how the core answers.
//!
//! The API sends [`Request`]s into a bounded channel whose receiver the core owns; each carries the
//! sender of its reply. The core answers at once for snapshots, and for actions when they hold.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use trunkline_config::Recorder;
use trunkline_sip::message::Method;

use crate::siprec::client::Chosen;
use crate::siprec::session::Session;

pub use trunkline_sinks::object::{
    Call, CallState, EndedBy, Leg, Participant, Pause, Receipt, Recording, RecordingState, Role,
    StreamTally, Tally, Verdict,
};

/// Requests that may wait for the core.
const REQUESTS_MAX: usize = 256;

/// A question or an order to the core.
#[derive(Debug)]
pub enum Request {
    /// All live calls, in any order.
    Calls {
        /// Gets them.
        reply: oneshot::Sender<Vec<Call>>,
    },
    /// One live call.
    Call {
        /// Its id.
        id: String,
        /// Gets it, or `None` when it is not live.
        reply: oneshot::Sender<Option<Call>>,
    },
    /// All recordings of which more may become known (state not final), with receipts so far.
    Recordings {
        /// Gets them.
        reply: oneshot::Sender<Vec<Recording>>,
    },
    /// Ends a call: BYE to both sides, before the answer CANCEL and 480, with a Reason header.
    Hangup {
        /// The call's id.
        id: String,
        /// Answered once the call is ending. Repeating it is fine.
        reply: oneshot::Sender<Result<Call, ActionError>>,
    },
    /// Transfers a call.
    Transfer {
        /// The call's id.
        call: String,
        /// What is asked for.
        order: TransferOrder,
        /// Answered once the transfer is under way; its outcome is told by events.
        reply: oneshot::Sender<Result<Call, ActionError>>,
    },
    /// Acts on a call's recording.
    RecordingAction {
        /// The call's id.
        call: String,
        /// What to do.
        action: RecordingAction,
        /// Answered once it holds at the packet; repeating an action that already holds is fine.
        reply: oneshot::Sender<Result<Recording, ActionError>>,
    },
    /// Acts on a call's recording sessions.
    RecorderOrder {
        /// The call's id.
        call: String,
        /// Which of them.
        chosen: Chosen,
        /// What is asked for.
        order: RecorderOrder,
        /// Answered once it holds at the packet.
        reply: SessionsReply,
    },
    /// All recording sessions that are not over, in either role.
    Siprec {
        /// Gets them.
        reply: oneshot::Sender<Vec<Session>>,
    },
    /// One recording session.
    SiprecSession {
        /// Its id.
        id: String,
        /// Gets it.
        reply: oneshot::Sender<Option<Session>>,
    },
    /// How the appliance is.
    Health {
        /// Gets it.
        reply: oneshot::Sender<Health>,
    },
}

/// What can be done with a call's local recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordingAction {
    /// Start one, or a second one after a stop.
    Start,
    /// Stop capturing for now.
    Pause,
    /// Go on.
    Resume,
    /// End it.
    Stop,
    /// Do not discard it at the call's end.
    Keep,
}

/// The sessions that an order was carried out on, as they are then.
pub type SessionsReply = oneshot::Sender<Result<Vec<Session>, ActionError>>;

/// What is asked of a call's recording sessions.
#[derive(Debug)]
pub enum RecorderOrder {
    /// Start, pause, resume or stop.
    Act {
        /// What to do.
        action: RecordingAction,
        /// Who records, where a start names servers of its own.
        recorder: Option<Arc<Recorder>>,
    },
    /// A request inside the session.
    Message {
        /// INFO, MESSAGE or OPTIONS.
        method: Method,
        /// Headers added to it.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
}

/// How a transfer's target is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferMode {
    /// A URI: it is called through the routes.
    #[default]
    Blind,
    /// The id of another live call, whose callee comes over; its caller is hung up.
    Attended,
}

/// A transfer as it is ordered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferOrder {
    /// The leg whose place the target takes: its id, `caller`, or `callee` (whoever talks to the
    /// caller).
    #[serde(default = "callee")]
    pub leg: String,
    /// Who takes it: a SIP or tel URI, or the id of another call.
    pub target: String,
    /// Which of the two.
    #[serde(default)]
    pub mode: TransferMode,
}

fn callee() -> String {
    "callee".to_owned()
}

/// Why an action was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionError {
    /// It makes no sense, with the reason in words.
    Invalid(String),
    /// No such live call.
    NotFound,
    /// Not in this state, with the reason in words.
    WrongState(String),
    /// Not possible now (the dataplane is down, a limit), with the reason in words.
    Unavailable(String),
}

/// How the appliance is, as the core sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Draining before an exit.
    pub draining: bool,
    /// The dataplane is attached.
    pub dataplane_up: bool,
    /// Capture writes fail or lack extents.
    pub capture_failing: bool,
    /// A limit is reached: a new call would be refused.
    pub at_capacity: bool,
}

impl Health {
    /// Whether a new call would be refused.
    #[must_use]
    pub const fn refuses_calls(&self) -> bool {
        self.draining || !self.dataplane_up || self.at_capacity
    }

    /// The word for it.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        if self.draining {
            "draining"
        } else if self.capture_failing || self.refuses_calls() {
            "degraded"
        } else {
            "ok"
        }
    }
}

/// The core does not answer: it is starting, stopping or stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreUnavailable;

/// The API's end of the channel to the core.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    requests: mpsc::Sender<Request>,
}

impl ControlHandle {
    /// A handle, and the receiver that the core takes requests from.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        (Self { requests }, receiver)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, CoreUnavailable> {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.requests
                .send(request(reply))
                .await
                .map_err(|_| CoreUnavailable)?;
            answer.await.map_err(|_| CoreUnavailable)
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or(Err(CoreUnavailable))
    }

    /// All live calls.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn calls(&self) -> Result<Vec<Call>, CoreUnavailable> {
        self.ask(|reply| Request::Calls { reply }).await
    }

    /// One live call.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn call(&self, id: &str) -> Result<Option<Call>, CoreUnavailable> {
        self.ask(|reply| Request::Call {
            id: id.to_owned(),
            reply,
        })
        .await
    }

    /// All recordings that are not final.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn recordings(&self) -> Result<Vec<Recording>, CoreUnavailable> {
        self.ask(|reply| Request::Recordings { reply }).await
    }

    /// Ends a call.
    ///
    /// # Errors
    /// The core does not answer; within: why it was not done.
    pub async fn hangup(&self, id: &str) -> Result<Result<Call, ActionError>, CoreUnavailable> {
        self.ask(|reply| Request::Hangup {
            id: id.to_owned(),
            reply,
        })
        .await
    }

    /// Transfers a call.
    ///
    /// # Errors
    /// The core does not answer; within: why it was not begun.
    pub async fn transfer(
        &self,
        call: &str,
        order: TransferOrder,
    ) -> Result<Result<Call, ActionError>, CoreUnavailable> {
        self.ask(|reply| Request::Transfer {
            call: call.to_owned(),
            order,
            reply,
        })
        .await
    }

    /// Acts on a call's recording.
    ///
    /// # Errors
    /// The core does not answer; within: why it was not done.
    pub async fn recording_action(
        &self,
        call: &str,
        action: RecordingAction,
    ) -> Result<Result<Recording, ActionError>, CoreUnavailable> {
        self.ask(|reply| Request::RecordingAction {
            call: call.to_owned(),
            action,
            reply,
        })
        .await
    }

    /// Acts on a call's recording sessions.
    ///
    /// # Errors
    /// The core does not answer; within: why it was not done.
    pub async fn recorder_order(
        &self,
        call: &str,
        chosen: Chosen,
        order: RecorderOrder,
    ) -> Result<Result<Vec<Session>, ActionError>, CoreUnavailable> {
        self.ask(|reply| Request::RecorderOrder {
            call: call.to_owned(),
            chosen,
            order,
            reply,
        })
        .await
    }

    /// All recording sessions that are not over.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn siprec(&self) -> Result<Vec<Session>, CoreUnavailable> {
        self.ask(|reply| Request::Siprec { reply }).await
    }

    /// One recording session, also shortly after its end.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn siprec_session(&self, id: &str) -> Result<Option<Session>, CoreUnavailable> {
        self.ask(|reply| Request::SiprecSession {
            id: id.to_owned(),
            reply,
        })
        .await
    }

    /// How the appliance is.
    ///
    /// # Errors
    /// The core does not answer.
    pub async fn health(&self) -> Result<Health, CoreUnavailable> {
        self.ask(|reply| Request::Health { reply }).await
    }
}
