//! The session descriptions of both ends: PCMU and telephone-event, nothing else.

use std::net::SocketAddr;

use trunkline_sdp::Description;

/// The content type of a description.
pub(crate) const CONTENT_TYPE: &str = "application/sdp";

/// Our offer or answer: the same text serves for both.
pub(crate) fn describe(media: SocketAddr, id: u32) -> String {
    let family = if media.is_ipv6() { "IP6" } else { "IP4" };
    let (address, port) = (media.ip(), media.port());
    format!(
        "v=0\r\no=rtpgen {id} 1 IN {family} {address}\r\ns=rtpgen\r\nc=IN {family} {address}\r\n\
         t=0 0\r\nm=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

/// Where the far end wants PCMU sent to.
///
/// # Errors
/// What is wrong with its description, in words for a report.
pub(crate) fn far_address(body: &[u8]) -> Result<SocketAddr, String> {
    let description = Description::parse(body).map_err(|error| error.to_string())?;
    let audio = description
        .media
        .iter()
        .find(|media| media.kind == "audio" && media.port != 0)
        .ok_or("no audio in the far end's session description")?;
    if !audio.payloads.iter().any(|payload| payload.pt == 0) {
        return Err("the far end does not take PCMU".to_owned());
    }
    audio
        .rtp_address()
        .ok_or_else(|| "no address in the far end's session description".to_owned())
}
