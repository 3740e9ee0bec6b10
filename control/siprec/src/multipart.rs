//! SDP and metadata in one body: `multipart/mixed` (RFC 2046, RFC 5621, RFC 7866 section 9.1).

use std::ops::Range;

use crate::limits::{BODY_BYTES_MAX, NESTING_MAX, PART_HEADER_BYTES_MAX, PARTS_MAX};
use crate::metadata::{MEDIA_TYPE, MEDIA_TYPE_OLD};

/// One part of a body; a body that is no multipart is its own only part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `type/subtype` in lower case, without parameters.
    pub content_type: String,
    /// The disposition in lower case, without parameters.
    pub disposition: Option<String>,
    /// The content.
    pub body: Vec<u8>,
}

/// Why a body is not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// Longer than [`BODY_BYTES_MAX`].
    #[error("{0} bytes are more than the {BODY_BYTES_MAX} a body may have")]
    TooLong(usize),
    /// More than [`PARTS_MAX`] parts, or multiparts nested deeper than [`NESTING_MAX`].
    #[error("more than {PARTS_MAX} parts, or nested deeper than {NESTING_MAX}")]
    TooMany,
    /// A part's header is longer than [`PART_HEADER_BYTES_MAX`] or does not end.
    #[error("a part's header does not end within {PART_HEADER_BYTES_MAX} bytes")]
    Header,
    /// No delimiter in it.
    #[error("no boundary in a multipart body")]
    NoBoundary,
}

/// What a SIPREC message carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bodies {
    /// The session description.
    pub sdp: Option<Vec<u8>>,
    /// The metadata document or snapshot request.
    pub metadata: Option<Vec<u8>>,
    /// Everything else.
    pub others: Vec<Part>,
}

/// Takes a body apart, whatever the order, case and number of its parts.
///
/// # Errors
/// See [`MultipartError`].
pub fn read(content_type: &str, body: &[u8]) -> Result<Bodies, MultipartError> {
    let mut bodies = Bodies::default();
    for part in parts(content_type, body)? {
        if part.content_type == "application/sdp" && bodies.sdp.is_none() {
            bodies.sdp = Some(part.body);
        } else if is_metadata(&part) && bodies.metadata.is_none() {
            bodies.metadata = Some(part.body);
        } else {
            bodies.others.push(part);
        }
    }
    Ok(bodies)
}

fn is_metadata(part: &Part) -> bool {
    let named = part.content_type == MEDIA_TYPE || part.content_type == MEDIA_TYPE_OLD;
    // A generic XML type is metadata when it is labelled so or looks so.
    let generic = part.content_type.ends_with("/xml")
        && (part.disposition.as_deref() == Some("recording-session")
            || part.body.windows(10).any(|at| at == b"<recording"));
    named || generic
}

/// All parts of a body, nested ones included, in order. An empty body has none.
///
/// # Errors
/// See [`MultipartError`].
pub fn parts(content_type: &str, body: &[u8]) -> Result<Vec<Part>, MultipartError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(MultipartError::TooLong(body.len()));
    }
    let mut found = Vec::new();
    collect(content_type, None, body, 0, &mut found)?;
    Ok(found)
}

fn collect(
    content_type: &str,
    disposition: Option<String>,
    body: &[u8],
    depth: usize,
    found: &mut Vec<Part>,
) -> Result<(), MultipartError> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    if !is_multipart(&kind) {
        if body.is_empty() {
            return Ok(());
        }
        if found.len() >= PARTS_MAX {
            return Err(MultipartError::TooMany);
        }
        found.push(Part {
            content_type: kind,
            disposition,
            body: body.to_vec(),
        });
        return Ok(());
    }
    if depth >= NESTING_MAX {
        return Err(MultipartError::TooMany);
    }
    for section in sections_of(parameters, body)? {
        let (headers, content) = split_header(&body[section])?;
        let inner = part_type(headers);
        let disposition = header(headers, "content-disposition").map(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
        collect(&inner, disposition, content, depth + 1, found)?;
    }
    Ok(())
}

/// What stands between the delimiters that a multipart's parameters name, or its first line does.
fn sections_of(parameters: &str, body: &[u8]) -> Result<Vec<Range<usize>>, MultipartError> {
    let boundary = match parameter(parameters, "boundary") {
        Some(boundary) => boundary.into_bytes(),
        None => first_delimiter(body).ok_or(MultipartError::NoBoundary)?,
    };
    let sections = sections(body, &boundary);
    if sections.is_empty() && !body.is_empty() {
        return Err(MultipartError::NoBoundary);
    }
    Ok(sections)
}

/// A multipart body with another session description in place of its first one; everything else stays
/// as it is, to the byte, but for a `Content-Length` of that part. `None` = there is no description in it.
#[must_use]
pub fn with_sdp(content_type: &str, body: &[u8], sdp: &[u8]) -> Option<Vec<u8>> {
    let (header, content) = find_sdp(content_type, body, 0)?;
    let mut out = Vec::with_capacity(body.len() - content.len() + sdp.len() + 8);
    out.extend_from_slice(&body[..header.start]);
    for line in body[header].split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if name.trim_ascii().eq_ignore_ascii_case(b"content-length") {
            let end: &[u8] = if line.ends_with(b"\r\n") {
                b"\r\n"
            } else {
                b"\n"
            };
            out.extend_from_slice(name);
            out.extend_from_slice(format!(": {}", sdp.len()).as_bytes());
            out.extend_from_slice(end);
        } else {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(sdp);
    out.extend_from_slice(&body[content.end..]);
    Some(out)
}

/// Where the first session description stands: its header with the empty line, and its content.
fn find_sdp(content_type: &str, body: &[u8], depth: usize) -> Option<(Range<usize>, Range<usize>)> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !is_multipart(kind) || depth >= NESTING_MAX {
        return None;
    }
    for section in sections_of(parameters, body).ok()? {
        let (headers, content) = split_header(&body[section.clone()]).ok()?;
        let begin = section.end - content.len();
        let inner = part_type(headers);
        let essence = inner.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/sdp") && !content.is_empty() {
            return Some((section.start..begin, begin..section.end));
        }
        if let Some((header, content)) = find_sdp(&inner, content, depth + 1) {
            let moved = |range: Range<usize>| range.start + begin..range.end + begin;
            return Some((moved(header), moved(content)));
        }
    }
    None
}

/// Whether a media type is one of several parts.
#[must_use]
pub fn is_multipart(kind: &str) -> bool {
    let kind = kind.trim().as_bytes();
    kind.get(..10)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// A part's type by its header.
fn part_type(headers: &[u8]) -> String {
    header(headers, "content-type")
        .or_else(|| header(headers, "c"))
        .unwrap_or_else(|| "text/plain".to_owned())
}

/// A parameter's value, quotes taken off.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.trim().trim_start_matches(';').trim();
        let value = value.trim_start();
        let (text, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim_end(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return (!text.is_empty()).then(|| text.to_owned());
        }
        rest = after;
    }
}

/// The boundary of the first line that begins with two dashes.
fn first_delimiter(body: &[u8]) -> Option<Vec<u8>> {
    body.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .find_map(|line| line.strip_prefix(b"--"))
        .filter(|boundary| !boundary.is_empty())
        .map(<[u8]>::to_vec)
}

/// What stands between the delimiter lines. A missing closing delimiter ends the last part at the
/// body's end.
fn sections(body: &[u8], boundary: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begun: Option<usize> = None;
    let mut at = 0;
    while at < body.len() {
        let end = body[at..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(body.len(), |length| at + length + 1);
        if let Some(closing) = delimiter(&body[at..end], boundary) {
            if let Some(begun) = begun {
                found.push(begun..begun + without_line_end(&body[begun..at]).len());
            }
            if closing {
                return found;
            }
            begun = Some(end);
        }
        at = end;
    }
    if let Some(begun) = begun.filter(|&begun| begun < body.len()) {
        found.push(begun..body.len());
    }
    found
}

/// Whether a line is a delimiter, and if so whether the closing one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.trim_ascii_end() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// The line end before a delimiter belongs to the delimiter.
fn without_line_end(section: &[u8]) -> &[u8] {
    let section = section.strip_suffix(b"\n").unwrap_or(section);
    section.strip_suffix(b"\r").unwrap_or(section)
}

/// A part's header and content. A part that begins with an empty line has no header.
fn split_header(section: &[u8]) -> Result<(&[u8], &[u8]), MultipartError> {
    let mut at = 0;
    while at < section.len() {
        if at > PART_HEADER_BYTES_MAX {
            return Err(MultipartError::Header);
        }
        let end = section[at..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(section.len(), |length| at + length + 1);
        if section[at..end].trim_ascii().is_empty() {
            return Ok((&section[..at], &section[end..]));
        }
        at = end;
    }
    Ok((section, &[]))
}

/// A header's value by its name in lower case, folded lines joined.
fn header(headers: &[u8], wanted: &str) -> Option<String> {
    let text = String::from_utf8_lossy(headers);
    let mut value: Option<String> = None;
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(value) = &mut value {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        if value.is_some() {
            break;
        }
        if let Some((name, rest)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case(wanted)
        {
            value = Some(rest.trim().to_owned());
        }
    }
    value
}

/// SDP and metadata as one body: its Content-Type and the body. `seed` makes the boundary differ from
/// message to message; a boundary that occurs in the content is changed until it does not.
#[must_use]
pub fn write(sdp: &[u8], metadata: &str, seed: u64) -> (String, Vec<u8>) {
    let occurs = |boundary: &str| {
        let within = |content: &[u8]| {
            content
                .windows(boundary.len())
                .any(|at| at == boundary.as_bytes())
        };
        within(sdp) || within(metadata.as_bytes())
    };
    let boundary = (0..)
        .map(|attempt: u64| format!("siprec-{:016x}", seed.wrapping_add(attempt)))
        .find(|boundary| !occurs(boundary))
        .expect("a finite content cannot hold every boundary");
    let mut body = Vec::with_capacity(sdp.len() + metadata.len() + 256);
    body.extend_from_slice(
        format!("--{boundary}\r\nContent-Type: application/sdp\r\n\r\n").as_bytes(),
    );
    body.extend_from_slice(sdp);
    body.extend_from_slice(
        format!(
            "\r\n--{boundary}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Disposition: recording-session\r\n\r\n{metadata}\r\n--{boundary}--\r\n"
        )
        .as_bytes(),
    );
    (format!("multipart/mixed;boundary={boundary}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &[u8] = b"v=0\r\ns=-\r\n";
    const XML: &str = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'/>";

    #[test]
    fn what_is_written_is_read() {
        let (content_type, body) = write(SDP, XML, 7);
        let bodies = read(&content_type, &body).unwrap();
        assert_eq!(bodies.sdp.as_deref(), Some(SDP));
        assert_eq!(bodies.metadata.as_deref(), Some(XML.as_bytes()));
        assert!(bodies.others.is_empty());
    }

    #[test]
    fn another_description_leaves_every_other_byte_as_it_was() {
        let kind = "multipart/mixed;boundary=b";
        let body = b"\r\n--b\r\nContent-Type: text/xml\r\n\r\n<recording\xff\n/>\r\n--b\r\nContent-Length: 3\r\nContent-Type: application/SDP\r\n\r\nv=0\r\n--b\nContent-Type: x/y\n\n--c\nlast";
        let changed = with_sdp(kind, body, b"v=0\r\ns=-").unwrap();
        let wanted = b"\r\n--b\r\nContent-Type: text/xml\r\n\r\n<recording\xff\n/>\r\n--b\r\nContent-Length: 8\r\nContent-Type: application/SDP\r\n\r\nv=0\r\ns=-\r\n--b\nContent-Type: x/y\n\n--c\nlast";
        assert_eq!(changed, wanted);
        let read = read(kind, &changed).unwrap();
        assert_eq!(read.sdp.as_deref(), Some(&b"v=0\r\ns=-"[..]));
        let nested = b"--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\nContent-Type: application/sdp\n\nv=0\n--y--\n--x--\n";
        let changed = with_sdp("multipart/mixed;boundary=x", nested, b"other").unwrap();
        let text = String::from_utf8(changed).unwrap();
        assert_eq!(
            text,
            String::from_utf8_lossy(nested).replace("v=0", "other")
        );
        for without in [
            &b"--b\r\nContent-Type: text/xml\r\n\r\nv=0\r\n--b--"[..],
            b"",
            b"nothing",
        ] {
            assert_eq!(with_sdp(kind, without, b"v=0"), None);
        }
    }

    #[test]
    fn a_boundary_that_occurs_in_the_content_is_not_taken() {
        let sdp = b"s=siprec-0000000000000007\r\n";
        let (content_type, body) = write(sdp, XML, 7);
        assert_eq!(
            read(&content_type, &body).unwrap().sdp.as_deref(),
            Some(&sdp[..])
        );
    }

    #[test]
    fn cisco_style_disposition_first_third_part_and_no_closing_boundary() {
        let body = b"--uniqueBoundary\r\nContent-Disposition: session;handling=required\r\nContent-Type: APPLICATION/SDP\r\n\r\nv=0\r\n\r\n--uniqueBoundary\r\nContent-Disposition: recording-session\r\nContent-Length: 12\r\nContent-Type: application/rs-metadata+xml\r\n\r\n<recording/>\r\n--uniqueBoundary\r\nContent-Type: application/gtd\r\n\r\nIAM,\r\n";
        let bodies = read("Multipart/Mixed; boundary=uniqueBoundary", body).unwrap();
        assert_eq!(bodies.sdp.as_deref(), Some(&b"v=0\r\n"[..]));
        assert_eq!(bodies.metadata.as_deref(), Some(&b"<recording/>"[..]));
        assert_eq!(bodies.others.len(), 1);
        assert_eq!(bodies.others[0].content_type, "application/gtd");
    }

    #[test]
    fn broadworks_style_metadata_before_sdp_and_a_blank_line_first() {
        let body = b"\r\n--b\r\nContent-Type: application/rs-metadata\r\n\r\n<recording_metadata/>\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\nepilogue";
        let bodies = read("multipart/mixed;boundary=\"b\"", body).unwrap();
        assert_eq!(bodies.sdp.as_deref(), Some(&b"v=0"[..]));
        assert_eq!(
            bodies.metadata.as_deref(),
            Some(&b"<recording_metadata/>"[..])
        );
    }

    #[test]
    fn bare_line_feeds_no_boundary_parameter_and_nested_parts() {
        let body = b"--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\nContent-Type: application/sdp\n\nv=0\n--y--\n--x\nContent-Type: text/xml\n\n<recording/>\n--x--\n";
        let bodies = read("multipart/mixed", body).unwrap();
        assert_eq!(bodies.sdp.as_deref(), Some(&b"v=0"[..]));
        assert_eq!(bodies.metadata.as_deref(), Some(&b"<recording/>"[..]));
    }

    #[test]
    fn a_body_of_one_kind_is_taken_as_it_is() {
        assert_eq!(
            read("application/sdp", SDP).unwrap().sdp.as_deref(),
            Some(SDP)
        );
        let only = read(
            "application/rs-metadata+xml; charset=utf-8",
            b"<recording/>",
        )
        .unwrap();
        assert!(only.sdp.is_none() && only.metadata.is_some());
        assert_eq!(read("application/sdp", b"").unwrap(), Bodies::default());
    }

    #[test]
    fn a_body_without_end_is_bounded() {
        assert_eq!(
            read("multipart/mixed;boundary=b", b"no delimiter"),
            Err(MultipartError::NoBoundary)
        );
        let many = b"--b\r\n\r\nx\r\n".repeat(PARTS_MAX + 1);
        assert_eq!(
            read("multipart/mixed;boundary=b", &many),
            Err(MultipartError::TooMany)
        );
        let long = vec![b'a'; BODY_BYTES_MAX + 1];
        assert_eq!(
            read("application/sdp", &long),
            Err(MultipartError::TooLong(long.len()))
        );
        let header = [b"--b\r\n".to_vec(), b"X: y\r\n".repeat(2000)].concat();
        assert_eq!(
            read("multipart/mixed;boundary=b", &header),
            Err(MultipartError::Header)
        );
    }
}
