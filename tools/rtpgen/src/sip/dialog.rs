//! What one end of a call keeps of its dialog, enough to build its requests.

use std::net::SocketAddr;

use trunkline_sip::message::{Method, NameAddr, Request, Response, Uri};
use trunkline_sip::transaction::Transport;

/// One end of a dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    pub(crate) call_id: String,
    /// Our From, with its tag.
    local: String,
    /// The far end's To.
    remote: String,
    /// Where its requests go: the far end's Contact.
    target: Uri,
    /// Route set, first hop first.
    routes: Vec<String>,
    cseq: u32,
    /// Our own Contact, with brackets.
    pub(crate) contact: String,
    /// The transport of the request that made it, for targets that name none.
    transport: Transport,
}

impl Dialog {
    /// The calling end's, from its INVITE and the 200.
    pub fn of_caller(
        invite: &Request,
        response: &Response,
        contact: &str,
        transport: Transport,
    ) -> Option<Self> {
        let mut routes = response.headers.list("Record-Route");
        routes.reverse();
        Some(Self {
            call_id: invite.headers.call_id().ok()?,
            local: invite.headers.get("From")?.into_owned(),
            remote: response.headers.get("To")?.into_owned(),
            target: response.headers.contact_uri()?,
            routes,
            cseq: 1,
            contact: contact.to_owned(),
            transport,
        })
    }

    /// The same with the number of the request that made it, where that is not 1.
    #[must_use]
    pub const fn numbered(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    /// The answering end's, from the INVITE and the tag of its answers.
    pub fn of_callee(
        invite: &Request,
        tag: &str,
        contact: &str,
        transport: Transport,
    ) -> Option<Self> {
        let to = invite.headers.get("To")?;
        Some(Self {
            call_id: invite.headers.call_id().ok()?,
            local: format!("{to};tag={tag}"),
            remote: invite.headers.get("From")?.into_owned(),
            target: invite.headers.contact_uri()?,
            routes: invite.headers.list("Record-Route"),
            cseq: 0,
            contact: contact.to_owned(),
            transport,
        })
    }

    /// A request within the dialog. An ACK has the number of the INVITE it acknowledges.
    pub fn request(&mut self, method: Method) -> Request {
        if method != Method::Ack {
            self.cseq += 1;
        }
        let cseq = format!("{} {}", self.cseq, method.as_str());
        let mut request = Request::new(method, self.target.clone());
        for route in &self.routes {
            request.headers.append("Route", route);
        }
        request.headers.append("From", &self.local);
        request.headers.append("To", &self.remote);
        request.headers.append("Call-ID", &self.call_id);
        request.headers.append("CSeq", cseq);
        request
    }

    /// Where the next hop is. `None` when it is a name, which is not looked up.
    pub fn next_hop(&self) -> Option<(Transport, SocketAddr)> {
        let hop = match self.routes.first() {
            Some(route) => NameAddr::parse(route, "Route").ok()?.uri,
            None => self.target.clone(),
        };
        resolve(&hop, self.transport)
    }
}

/// The address and transport of a URI whose host is an address.
pub(crate) fn resolve(uri: &Uri, default: Transport) -> Option<(Transport, SocketAddr)> {
    let transport = match uri
        .param("transport")
        .as_deref()
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None => default,
        Some("udp") => Transport::Udp,
        Some("tcp") => Transport::Tcp,
        Some(_) => return None,
    };
    Some((
        transport,
        SocketAddr::new(uri.host_ip()?, uri.port().unwrap_or(5060)),
    ))
}
