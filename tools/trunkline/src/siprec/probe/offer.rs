//! What we offer to a recorder: two streams with labels, and who is heard on them.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;
use trunkline_sdp::family_name;
use trunkline_siprec::describe::Description;
use trunkline_siprec::metadata::{Metadata, NameId, write};
use uuid::Uuid;

/// The labels of our m-lines, in their order.
pub(super) const LABELS: [&str; 2] = ["1", "2"];
/// The tones on them.
pub(super) const TONES_HZ: [u32; 2] = [440, 660];

/// Our description, as it goes from offer to offer.
#[derive(Debug)]
pub(super) struct Sdp {
    session: u64,
    version: u64,
    media: [SocketAddr; 2],
}

impl Sdp {
    pub(super) fn new(media: [SocketAddr; 2]) -> Self {
        Self {
            session: rand::random::<u64>() >> 2,
            version: 0,
            media,
        }
    }

    /// The next offer: `sendonly`, or `inactive` for a pause (RFC 7866 section 7.1.1.1).
    pub(super) fn next(&mut self, sends: bool) -> String {
        self.version += 1;
        let direction = if sends { "sendonly" } else { "inactive" };
        let address = self.media[0].ip();
        let family = family_name(address);
        let mut text = format!(
            "v=0\r\no=- {} {} IN {family} {address}\r\ns=probe\r\nc=IN {family} {address}\r\nt=0 0\r\n",
            self.session, self.version
        );
        for (media, label) in self.media.iter().zip(LABELS) {
            text += &format!(
                "m=audio {} RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
                 a=ptime:20\r\na=label:{label}\r\na={direction}\r\n",
                media.port()
            );
        }
        text
    }
}

/// What the recorder is told of the session.
#[derive(Debug)]
pub(super) struct Story {
    description: Description,
    parties: [Uuid; 2],
    host: String,
}

impl Story {
    pub(super) fn new(local: IpAddr) -> Self {
        let begin = now();
        let parties = [Uuid::now_v7(), Uuid::now_v7()];
        let mut story = Self {
            description: Description::new(None, Uuid::now_v7(), &begin, &begin),
            parties,
            host: trunkline_sip::message::bracketed(&local.to_string()).into_owned(),
        };
        for (place, label) in LABELS.iter().enumerate() {
            let names = story.names(place, "Probe");
            let description = &mut story.description;
            description.join(parties[place], names, Uuid::now_v7(), label, &begin);
        }
        story
    }

    /// The communication session's id.
    pub(super) fn session_id(&self) -> &str {
        self.description.session_id().as_str()
    }

    fn names(&self, place: usize, who: &str) -> Vec<NameId> {
        vec![NameId {
            aor: format!("sip:probe{}@{}", place + 1, self.host),
            name: Some(format!("{who}, {} Hz", TONES_HZ[place])),
            language: Some("en".to_owned()),
        }]
    }

    pub(super) fn complete(&self) -> Metadata {
        self.description.complete()
    }

    /// What has changed: the first party has another name.
    pub(super) fn renamed(&mut self) -> Option<Metadata> {
        let names = self.names(0, "Renamed probe");
        self.description.rename(self.parties[0], names);
        self.description.partial()
    }

    /// The session is over.
    pub(super) fn stopped(&mut self) -> Option<Metadata> {
        self.description.stop(&now(), None);
        self.description.partial()
    }

    /// The recorder took a document.
    pub(super) fn accepted(&mut self, document: &Metadata) {
        self.description.accepted(document);
    }
}

/// This moment as RFC 3339 writes it, in UTC.
fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// SDP and metadata as one body, with its type.
pub(super) fn body(sdp: &str, document: &Metadata) -> (String, Vec<u8>) {
    trunkline_siprec::multipart::write(sdp.as_bytes(), &write(document), rand::random())
}
