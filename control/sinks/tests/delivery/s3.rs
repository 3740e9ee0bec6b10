//! A server that speaks as much of S3 as an upload takes, honestly or not.

use crate::http::{Reply, Request, Server};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Takes requests and never answers.
    Hang,
    /// Answers so many requests with 503.
    Unavailable(u32),
    /// Says 200 and keeps the first half.
    Truncates,
    /// Says 200 and keeps other bytes.
    Corrupts,
    /// Says the right size and gives less back.
    GivesLess,
}

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    /// Method and what it was for.
    pub requests: Vec<String>,
    fault: Option<Fault>,
}

/// Something that happens once.
type Event = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct S3 {
    state: Arc<Mutex<State>>,
    before_put: Arc<Mutex<Option<Event>>>,
}

fn xml(body: String) -> Reply {
    Reply::Answer {
        status: 200,
        headers: vec![("Content-Type", "application/xml".to_owned())],
        body: format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}").into_bytes(),
    }
}

impl S3 {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Has this happen once a first object came, before it is kept.
    pub fn before_put(&self, event: impl FnOnce() + Send + 'static) {
        *self.before_put.lock().unwrap() = Some(Box::new(event));
    }

    /// Starts it.
    pub fn serve(&self) -> Server {
        self.serve_with(None)
    }

    /// Starts it, with TLS where that is given.
    pub fn serve_with(&self, tls: Option<Arc<ServerConfig>>) -> Server {
        let own = self.clone();
        Server::start_with(tls, move |request| own.answer(request))
    }

    fn answer(&self, request: Request) -> Reply {
        if request.method == "PUT"
            && let Some(event) = self.before_put.lock().unwrap().take()
        {
            event();
        }
        let mut state = self.state();
        match state.fault {
            Some(Fault::Hang) => return Reply::Hang,
            Some(Fault::Unavailable(left)) if left > 0 => {
                state.fault = Some(Fault::Unavailable(left - 1));
                state.requests.push("503".to_owned());
                return Reply::status(503);
            }
            _ => {}
        }
        if !is_authentic(&request) {
            return Reply::status(403);
        }
        state.serve(request)
    }
}

/// Signed by the right key id, and the body is the one that was signed.
fn is_authentic(request: &Request) -> bool {
    let signed = request.headers.get("authorization");
    let own = signed.is_some_and(|text| text.contains("Credential=me/"));
    let hash = request.headers.get("x-amz-content-sha256");
    let computed: String = Sha256::digest(&request.body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    own && hash.is_some_and(|hash| *hash == computed || hash == "UNSIGNED-PAYLOAD")
}

impl State {
    /// What is kept of a body.
    fn kept(&self, mut body: Vec<u8>) -> Vec<u8> {
        match self.fault {
            Some(Fault::Truncates) => body.truncate(body.len() / 2),
            Some(Fault::Corrupts) => body[0] ^= 1,
            _ => {}
        }
        body
    }

    fn serve(&mut self, request: Request) -> Reply {
        let key = request.path.trim_start_matches('/').to_owned();
        let upload = request.query.get("uploadId").cloned();
        let part = request.query.get("partNumber");
        let kind = match (&upload, part) {
            (_, Some(_)) => "part",
            (Some(_), None) => "upload",
            (None, None) => "object",
        };
        self.requests.push(format!("{} {kind}", request.method));
        let etag = |text: &str| Reply::Answer {
            status: 200,
            headers: vec![("ETag", format!("\"{text}\""))],
            body: Vec::new(),
        };
        match (request.method.as_str(), upload) {
            ("POST", None) => {
                let id = format!("upload-{}", self.uploads.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            ("PUT", Some(upload)) => {
                let number: u32 = part.unwrap().parse().unwrap();
                let kept = self.kept(request.body);
                let parts = self.uploads.get_mut(&upload).unwrap();
                parts.insert(number, kept);
                etag(&format!("part-{number}"))
            }
            ("POST", Some(upload)) => {
                let parts = self.uploads.remove(&upload).unwrap();
                self.objects
                    .insert(key, parts.into_values().flatten().collect());
                xml("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>".to_owned())
            }
            ("DELETE", Some(upload)) => {
                self.uploads.remove(&upload);
                Reply::status(204)
            }
            ("PUT", None) => {
                let kept = self.kept(request.body);
                self.objects.insert(key, kept);
                etag("whole")
            }
            ("DELETE", None) => {
                self.objects.remove(&key);
                Reply::status(204)
            }
            ("HEAD" | "GET", None) => self.give(&key, &request),
            _ => Reply::status(400),
        }
    }

    fn give(&self, key: &str, request: &Request) -> Reply {
        let Some(object) = self.objects.get(key) else {
            return Reply::status(404);
        };
        let mut headers = vec![
            ("ETag", "\"whole\"".to_owned()),
            ("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT".to_owned()),
        ];
        if request.method == "HEAD" {
            headers.push(("Content-Length", object.len().to_string()));
            return Reply::Answer {
                status: 200,
                headers,
                body: Vec::new(),
            };
        }
        let range = request.headers["range"].trim_start_matches("bytes=");
        let (from, to) = range.split_once('-').unwrap();
        let (from, mut to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let length = object.len();
        if self.fault == Some(Fault::GivesLess) {
            to -= (to - from) / 2;
        }
        headers.push(("Content-Range", format!("bytes {from}-{to}/{length}")));
        Reply::Answer {
            status: 206,
            headers,
            body: object[from..=to].to_vec(),
        }
    }
}
