//! What the user of an [`Agent`](super::Agent) gives it: settings, bodies, calls to place.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialog::{DialogError, SessionPolicy};
use crate::message::{Headers, Method, NameAddr, Replaces, Uri};
use crate::transaction::{Config, FlowId, SendError, Target, Transport};

/// One dialog of an agent, never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogHandle(pub(super) u64);

/// One INVITE of ours from its sending to its end, over every retry (authentication, 422,
/// redirection). Each fork that answers it is a dialog of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptHandle(pub(super) u64);

/// A search for somebody who answers, over several targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HuntHandle(pub(super) u64);

/// A request of the peer that the user has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestHandle(pub(super) u64);

/// A request that the user sent inside a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SentHandle(pub(super) u64);

/// The subscription that a REFER makes (RFC 3515), on either side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionHandle(pub(super) u64);

/// A body and its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    #[serde(rename = "t")]
    pub content_type: String,
    #[serde(rename = "b")]
    pub bytes: Vec<u8>,
}

impl Body {
    /// A session description.
    pub fn sdp(text: impl Into<Vec<u8>>) -> Body {
        Body {
            content_type: "application/sdp".to_owned(),
            bytes: text.into(),
        }
    }

    /// The body of a received message; `None` when it is empty.
    pub fn of(headers: &Headers, bytes: &[u8]) -> Option<Body> {
        let content_type = headers
            .get("Content-Type")
            .unwrap_or("application/octet-stream".into());
        (!bytes.is_empty()).then(|| Body {
            content_type: content_type.into_owned(),
            bytes: bytes.to_vec(),
        })
    }
}

/// Name and password for digest challenges (RFC 7616, RFC 8760).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Credentials({})", self.username)
    }
}

/// A socket of the user's I/O that requests can leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub transport: Transport,
    /// The socket; `None` where the I/O connects to each remote address by itself.
    pub flow: Option<FlowId>,
    /// The address written into Via.
    pub local: SocketAddr,
}

/// Settings of an [`Agent`](super::Agent).
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub transaction: Config,
    /// Our Contact. Its host must be an address or name that the peer can reach.
    pub contact: Uri,
    /// What requests leave by: the first of a transport serves it.
    pub sockets: Vec<Socket>,
    /// The methods that reach the user inside dialogs beside those the agent handles by itself
    /// (INVITE, ACK, CANCEL, BYE, PRACK, UPDATE, OPTIONS, REFER, NOTIFY). Others get 405.
    pub methods: Vec<Method>,
    /// What we want of session timers (RFC 4028); `None` does without.
    pub session: Option<SessionPolicy>,
    /// Whether P-Asserted-Identity and Remote-Party-ID of callers are believed (RFC 3325).
    pub trust_identity: bool,
    /// How long the user may take to answer a re-INVITE before it is answered 500.
    pub answer_timeout: Duration,
    /// How long after an accepted REFER its outcome is waited for, on both sides.
    pub refer_timeout: Duration,
}

impl AgentConfig {
    /// Settings with one socket: INFO and MESSAGE reach the user, session timers of 1800 s, no
    /// trust, 30 s to answer a re-INVITE, 60 s for the outcome of a REFER.
    pub fn new(contact: Uri, socket: Socket) -> AgentConfig {
        AgentConfig {
            transaction: Config::default(),
            contact,
            sockets: vec![socket],
            methods: vec![Method::Info, Method::Message],
            session: Some(SessionPolicy::default()),
            trust_identity: false,
            answer_timeout: Duration::from_secs(30),
            refer_timeout: Duration::from_secs(60),
        }
    }
}

/// A call to place.
#[derive(Clone, Debug)]
pub struct Invite {
    /// The Request-URI.
    pub uri: Uri,
    /// Our address, without tag.
    pub from: NameAddr,
    /// The callee's address; usually that of the Request-URI.
    pub to: NameAddr,
    /// The host part of the Call-ID.
    pub host: String,
    /// Where the INVITE goes.
    pub target: Target,
    /// Route elements (an outbound proxy), as written: `<sip:proxy;lr>`.
    pub route: Vec<String>,
    /// Further headers. Those that belong to the dialog are left out.
    pub headers: Headers,
    /// The offer; `None` asks the callee for one.
    pub body: Option<Body>,
    pub credentials: Option<Credentials>,
    /// Most redirections (3xx) to follow.
    pub redirects_max: u8,
    /// The dialog to take the place of (RFC 3891).
    pub replaces: Option<Replaces>,
    /// Whether reliable provisional responses (RFC 3262) are offered.
    pub reliable: bool,
    /// How long it may ring before it is cancelled and counts as 408.
    pub ring_timeout: Option<Duration>,
    /// Whether the user acknowledges the 2xx by [`acknowledge`](super::Agent::acknowledge) in
    /// any case, as a B2BUA does that waits for its caller's ACK. Without it the agent does
    /// so, unless the 2xx brings an offer.
    pub acknowledge_later: bool,
}

impl Invite {
    /// A call from `from` to `uri` by way of `target`, without body, following no redirection,
    /// offering reliable provisional responses.
    pub fn new(uri: Uri, from: NameAddr, target: Target) -> Invite {
        Invite {
            host: from.uri.host().to_owned(),
            to: NameAddr::new(uri.clone()),
            uri,
            from,
            target,
            route: Vec::new(),
            headers: Headers::new(),
            body: None,
            credentials: None,
            redirects_max: 0,
            replaces: None,
            reliable: true,
            ring_timeout: None,
            acknowledge_later: false,
        }
    }
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The dialog, attempt, request or subscription was there and is over.
    #[error("it has ended")]
    Ended,
    #[error("no such dialog, attempt, request or subscription")]
    Unknown,
    /// Not in this state of the call: answering twice, modifying before the answer.
    #[error("not possible now: {0}")]
    State(&'static str),
    #[error("the agent sends this method by another operation")]
    Method,
    #[error("the Contact names no address that anybody can reach")]
    Contact,
    /// No socket of the transport, or a host name that the user has to resolve.
    #[error("nothing leads to {0}")]
    Unreachable(String),
    #[error(transparent)]
    Dialog(#[from] DialogError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// Which headers cross from one leg of a call to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// Only these cross; `None`: all.
    pub only: Option<Vec<String>>,
    /// These never cross.
    pub keep_back: Vec<String>,
}

/// Headers that belong to one leg and never cross: its dialog, its way, its body, its
/// challenges, what it can do.
const OF_THE_LEG: &[&str] = &[
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Require",
    "Proxy-Require",
    "Supported",
    "Unsupported",
    "Allow",
    "RSeq",
    "RAck",
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Content-Disposition",
    "Content-Language",
    "Session-Expires",
    "Min-SE",
    "Replaces",
    "Event",
    "Subscription-State",
    "Refer-To",
    "Authorization",
    "Proxy-Authorization",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Retry-After",
];

impl HeaderPolicy {
    /// The headers that cross.
    pub fn crossing(&self, from: &Headers) -> Headers {
        let mut crossing = Headers::new();
        for field in from {
            let named = |names: &[String]| names.iter().any(|name| field.is(name));
            let chosen = self.only.as_deref().is_none_or(named) && !named(&self.keep_back);
            if chosen && !OF_THE_LEG.iter().any(|name| field.is(name)) {
                crossing.append(field.name(), field.value());
            }
        }
        crossing
    }
}

/// Adds the user's headers to a message of ours, but for those the agent itself writes.
pub(super) fn add_headers(to: &mut Headers, extra: &Headers) {
    const OURS: &[&str] = &[
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Route",
        "Record-Route",
        "RSeq",
        "RAck",
        "Content-Type",
        "Content-Length",
        "Session-Expires",
    ];
    for field in extra {
        if !OURS.iter().any(|name| field.is(name)) {
            to.append(field.name(), field.value());
        }
    }
}
