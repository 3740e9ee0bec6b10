//! User agents: whole calls over the transaction and dialog layers, sans-IO.
//!
//! An [`Agent`] takes bytes and `now`, and gives back bytes to send, [`AgentEvent`]s and its
//! next deadline. What the RFCs leave no choice in, it does by itself: retransmission, ACK,
//! PRACK, the order of offers, 491 and its retry, session timers, digest, a late 2xx's ACK and
//! BYE. What is a choice comes as an event and goes back as an operation:
//!
//! | to | operations |
//! |---|---|
//! | take a call | [`ring`](Agent::ring), [`accept`](Agent::accept), [`reject`](Agent::reject) |
//! | place a call | [`call`](Agent::call), [`cancel`](Agent::cancel), [`acknowledge`](Agent::acknowledge), [`answer_provisional`](Agent::answer_provisional) |
//! | try several targets | [`hunt`](Agent::hunt), [`cancel_hunt`](Agent::cancel_hunt) |
//! | change it | [`modify`](Agent::modify), [`update`](Agent::update), [`cancel_modify`](Agent::cancel_modify), [`answer`](Agent::answer) |
//! | talk in it | [`request`](Agent::request), [`answer`](Agent::answer) |
//! | transfer it | [`refer`](Agent::refer), [`accept_refer`](Agent::accept_refer), [`report`](Agent::report) |
//! | end it | [`hangup`](Agent::hangup) |
//! | keep it | [`snapshot`](Agent::snapshot), [`restore`](Agent::restore) |
//!
//! A host name in a route or Contact is not looked up: the request goes where the dialog's
//! requests went before, or where [`set_target`](Agent::set_target) says.

mod alarms;
mod core;
mod event;
mod hunt;
mod incoming;
mod leg;
mod modify;
mod outgoing;
mod refer;
mod request;
mod retry;
mod snapshot;
mod types;
mod view;

pub use self::core::Agent;
pub use event::{AgentEvent, End, EndCause, EndedBy, EventKind, MediaChange};
pub use snapshot::Snapshot;
pub use types::{
    AgentConfig, AgentError, AttemptHandle, Body, Credentials, DialogHandle, HeaderPolicy,
    HuntHandle, Invite, RequestHandle, SentHandle, Socket, SubscriptionHandle,
};
pub use view::{CallState, DialogView, Side, Times};
