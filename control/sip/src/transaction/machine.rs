//! The four state machines of RFC 3261 section 17 as corrected by RFC 6026, as tables: a state
//! and an input give the next state and what to do. Time and bytes are elsewhere.

/// What a transaction does on a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the request (again).
    SendRequest,
    /// Send the ACK of a failure response.
    SendAck,
    /// Send the last response (again).
    SendResponse,
    /// Hand the message to the user.
    Deliver,
    /// Tell the user of a 2xx that came after a failure response.
    DeliverStray,
    /// Tell the user that no final response came.
    Timeout,
    /// Tell the user that the request could not be sent.
    TransportError,
    /// Tell the user that a final response was not acknowledged.
    NoAck,
    /// Tell the user that it answered too late.
    Unanswered,
}

use Action::{
    Deliver, DeliverStray, NoAck, SendAck, SendRequest, SendResponse, Timeout, TransportError,
    Unanswered,
};

/// A client transaction's state.
///
/// ```text
/// INVITE  Calling ─1xx→ Proceeding ─2xx→ Accepted ─M→ Terminated
///            └──────2xx, 300-699──┴─300-699→ Completed ─D→ Terminated
/// other   Trying ─1xx→ Proceeding ─final→ Completed ─K→ Terminated
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// Calling or Trying.
    Started,
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientInput {
    Provisional,
    Success,
    Failure,
    /// Timer A or E: time to send again.
    Resend,
    /// Timer B, D, F, K or M, and the wait for the end of a cancelled INVITE.
    Expire,
    SendFailed,
}

/// The client INVITE machine (RFC 3261 figure 5 with RFC 6026 figure 4).
pub(crate) fn client_invite(
    state: ClientState,
    input: ClientInput,
) -> (ClientState, &'static [Action]) {
    use ClientInput::*;
    use ClientState::*;
    match (state, input) {
        (Started, Resend) => (Started, &[SendRequest]),
        (Started | Proceeding, Provisional) => (Proceeding, &[Deliver]),
        (Started | Proceeding, Success) => (Accepted, &[Deliver]),
        (Started | Proceeding, Failure) => (Completed, &[SendAck, Deliver]),
        (Started | Proceeding, Expire) => (Terminated, &[Action::Timeout]),
        (Started | Proceeding, SendFailed) => (Terminated, &[Action::TransportError]),
        (Completed, Failure) => (Completed, &[SendAck]),
        // A proxy forwards a 2xx even after a failure (RFC 3261 section 16.7).
        (Completed, Success) => (Completed, &[DeliverStray]),
        (Accepted, Success) => (Accepted, &[Deliver]),
        (Completed | Accepted, Expire) => (Terminated, &[]),
        (state, _) => (state, &[]),
    }
}

/// The client machine of other methods (RFC 3261 figure 6).
pub(crate) fn client_other(
    state: ClientState,
    input: ClientInput,
) -> (ClientState, &'static [Action]) {
    use ClientInput::*;
    use ClientState::*;
    match (state, input) {
        (Started | Proceeding, Resend) => (state, &[SendRequest]),
        (Started | Proceeding, Provisional) => (Proceeding, &[Deliver]),
        (Started | Proceeding, Success | Failure) => (Completed, &[Deliver]),
        (Started | Proceeding, Expire) => (Terminated, &[Timeout]),
        (Started | Proceeding, SendFailed) => (Terminated, &[TransportError]),
        (Completed, Expire) => (Terminated, &[]),
        (state, _) => (state, &[]),
    }
}

/// A server transaction's state.
///
/// ```text
/// INVITE  Proceeding ─2xx→ Accepted ─L→ Terminated
///              └──300-699→ Completed ─ACK→ Confirmed ─I→ Terminated
///                              └──────────H───────────────↗
/// other   Trying ─1xx→ Proceeding ─final→ Completed ─J→ Terminated
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerState {
    Trying,
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerInput {
    /// The request came again.
    Request,
    Ack,
    /// The user sends a provisional, 2xx or failure response.
    Provisional,
    Success,
    Failure,
    /// Timer G, and the repetition of an unacknowledged 2xx.
    Resend,
    /// Timer H, I, J or L, and the wait for the user's answer.
    Expire,
}

/// The server INVITE machine (RFC 3261 figure 7 with RFC 6026 figure 5). The repetition of the
/// 2xx, which the RFC leaves to the user, is done here.
pub(crate) fn server_invite(
    state: ServerState,
    input: ServerInput,
) -> (ServerState, &'static [Action]) {
    use ServerInput::*;
    use ServerState::*;
    match (state, input) {
        (Proceeding, Request | Provisional) => (Proceeding, &[SendResponse]),
        (Proceeding, Success) => (Accepted, &[SendResponse]),
        (Proceeding, Failure) => (Completed, &[SendResponse]),
        (Completed, Request | Resend) => (Completed, &[SendResponse]),
        (Completed, Ack) => (Confirmed, &[]),
        (Completed, Expire) => (Terminated, &[NoAck]),
        (Confirmed, Expire) => (Terminated, &[]),
        (Accepted, Resend) => (Accepted, &[SendResponse]),
        (Accepted, Ack) => (Accepted, &[Deliver]),
        (Accepted, Expire) => (Terminated, &[NoAck]),
        (state, _) => (state, &[]),
    }
}

/// The server machine of other methods (RFC 3261 figure 8, RFC 4320).
pub(crate) fn server_other(
    state: ServerState,
    input: ServerInput,
) -> (ServerState, &'static [Action]) {
    use ServerInput::*;
    use ServerState::*;
    match (state, input) {
        (Trying | Proceeding, Provisional) => (Proceeding, &[SendResponse]),
        (Trying | Proceeding, Success | Failure) => (Completed, &[SendResponse]),
        (Proceeding | Completed, Request) => (state, &[SendResponse]),
        (Trying | Proceeding, Expire) => (Terminated, &[Unanswered]),
        (Completed, Expire) => (Terminated, &[]),
        (state, _) => (state, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole matrix, one line a pair that changes anything.
    fn matrix<S: Copy + PartialEq + std::fmt::Debug, I: Copy + std::fmt::Debug>(
        states: &[S],
        inputs: &[I],
        step: fn(S, I) -> (S, &'static [Action]),
    ) -> String {
        let mut lines = String::new();
        for state in states {
            for input in inputs {
                let (next, actions) = step(*state, *input);
                if next != *state || !actions.is_empty() {
                    lines.push_str(&format!("{state:?} {input:?} -> {next:?} {actions:?}\n"));
                }
            }
        }
        lines
    }

    const CLIENT_STATES: [ClientState; 5] = [
        ClientState::Started,
        ClientState::Proceeding,
        ClientState::Completed,
        ClientState::Accepted,
        ClientState::Terminated,
    ];
    const CLIENT_INPUTS: [ClientInput; 6] = [
        ClientInput::Provisional,
        ClientInput::Success,
        ClientInput::Failure,
        ClientInput::Resend,
        ClientInput::Expire,
        ClientInput::SendFailed,
    ];
    const SERVER_STATES: [ServerState; 6] = [
        ServerState::Trying,
        ServerState::Proceeding,
        ServerState::Completed,
        ServerState::Confirmed,
        ServerState::Accepted,
        ServerState::Terminated,
    ];
    const SERVER_INPUTS: [ServerInput; 7] = [
        ServerInput::Request,
        ServerInput::Ack,
        ServerInput::Provisional,
        ServerInput::Success,
        ServerInput::Failure,
        ServerInput::Resend,
        ServerInput::Expire,
    ];

    #[test]
    fn client_invite_matrix() {
        assert_eq!(
            matrix(&CLIENT_STATES, &CLIENT_INPUTS, client_invite),
            "Started Provisional -> Proceeding [Deliver]
Started Success -> Accepted [Deliver]
Started Failure -> Completed [SendAck, Deliver]
Started Resend -> Started [SendRequest]
Started Expire -> Terminated [Timeout]
Started SendFailed -> Terminated [TransportError]
Proceeding Provisional -> Proceeding [Deliver]
Proceeding Success -> Accepted [Deliver]
Proceeding Failure -> Completed [SendAck, Deliver]
Proceeding Expire -> Terminated [Timeout]
Proceeding SendFailed -> Terminated [TransportError]
Completed Success -> Completed [DeliverStray]
Completed Failure -> Completed [SendAck]
Completed Expire -> Terminated []
Accepted Success -> Accepted [Deliver]
Accepted Expire -> Terminated []
"
        );
    }

    #[test]
    fn client_other_matrix() {
        assert_eq!(
            matrix(&CLIENT_STATES, &CLIENT_INPUTS, client_other),
            "Started Provisional -> Proceeding [Deliver]
Started Success -> Completed [Deliver]
Started Failure -> Completed [Deliver]
Started Resend -> Started [SendRequest]
Started Expire -> Terminated [Timeout]
Started SendFailed -> Terminated [TransportError]
Proceeding Provisional -> Proceeding [Deliver]
Proceeding Success -> Completed [Deliver]
Proceeding Failure -> Completed [Deliver]
Proceeding Resend -> Proceeding [SendRequest]
Proceeding Expire -> Terminated [Timeout]
Proceeding SendFailed -> Terminated [TransportError]
Completed Expire -> Terminated []
"
        );
    }

    #[test]
    fn server_invite_matrix() {
        assert_eq!(
            matrix(&SERVER_STATES, &SERVER_INPUTS, server_invite),
            "Proceeding Request -> Proceeding [SendResponse]
Proceeding Provisional -> Proceeding [SendResponse]
Proceeding Success -> Accepted [SendResponse]
Proceeding Failure -> Completed [SendResponse]
Completed Request -> Completed [SendResponse]
Completed Ack -> Confirmed []
Completed Resend -> Completed [SendResponse]
Completed Expire -> Terminated [NoAck]
Confirmed Expire -> Terminated []
Accepted Ack -> Accepted [Deliver]
Accepted Resend -> Accepted [SendResponse]
Accepted Expire -> Terminated [NoAck]
"
        );
    }

    #[test]
    fn server_other_matrix() {
        assert_eq!(
            matrix(&SERVER_STATES, &SERVER_INPUTS, server_other),
            "Trying Provisional -> Proceeding [SendResponse]
Trying Success -> Completed [SendResponse]
Trying Failure -> Completed [SendResponse]
Trying Expire -> Terminated [Unanswered]
Proceeding Request -> Proceeding [SendResponse]
Proceeding Provisional -> Proceeding [SendResponse]
Proceeding Success -> Completed [SendResponse]
Proceeding Failure -> Completed [SendResponse]
Proceeding Expire -> Terminated [Unanswered]
Completed Request -> Completed [SendResponse]
Completed Expire -> Terminated []
"
        );
    }
}
