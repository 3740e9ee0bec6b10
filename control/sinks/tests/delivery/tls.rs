//! Sinks over TLS: whom they believe, and that nobody else gets a byte of a recording.

use crate::http::{Reply, Server};
use crate::place::{Place, sinks, wait_for};
use crate::s3::S3;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio_tungstenite::tungstenite::{Message, accept};
use trunkline_hooks::RecordingChannel;
use trunkline_sinks::catalog::DeliveryState;

/// An authority that a test makes.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// What a server of this name speaks TLS with.
    fn server(&self, name: &str) -> Arc<ServerConfig> {
        // Another test may have been faster, with the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }
}

/// What a server shows, against an authority that is believed.
enum Shown {
    Right,
    OtherName,
    OtherAuthority,
}

const CASES: [(Shown, Option<&str>); 3] = [
    (Shown::Right, None),
    (Shown::OtherName, Some("not valid for name")),
    (Shown::OtherAuthority, Some("UnknownIssuer")),
];

/// The server's side; the authority's certificate lies in `ca.pem`.
fn show(place: &Place, shown: &Shown) -> Arc<ServerConfig> {
    let believed = Authority::new("believed");
    std::fs::write(place.path("ca.pem"), &believed.pem).unwrap();
    match shown {
        Shown::Right => believed.server("127.0.0.1"),
        Shown::OtherName => believed.server("other.example"),
        Shown::OtherAuthority => Authority::new("another").server("127.0.0.1"),
    }
}

/// Waits until the one delivery was made, or refused for this reason.
fn judge(place: &Place, refused: Option<&str>) {
    let Some(why) = refused else {
        place.wait(DeliveryState::Done, 1);
        return;
    };
    let error = wait_for("a refusal", || {
        place
            .deliveries(DeliveryState::Waiting)
            .first()?
            .error
            .clone()
    });
    assert!(error.contains(why), "{error}");
    assert!(!error.contains("t0ken"), "{error}");
}

#[test]
fn a_webhook_is_told_of_nothing_unless_it_proves_who_it_is() {
    for (shown, refused) in CASES {
        let mut place = Place::new(1, 5);
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let server = Server::start_with(Some(show(&place, &shown)), move |_| {
            counted.fetch_add(1, SeqCst);
            Reply::status(204)
        });
        let ca = place.text("ca.pem");
        place.start(&sinks(&format!(
            "[[sink]]\nkind = \"webhook\"\nurl = \"https://{}/t0ken\"\nca_file = \"{ca}\"\n",
            server.address
        )));
        judge(&place, refused);
        assert_eq!(requests.load(SeqCst) > 0, refused.is_none());
    }
}

#[test]
fn a_store_gets_nothing_unless_it_proves_who_it_is() {
    for (shown, refused) in CASES {
        let mut place = Place::new(1, 5);
        let s3 = S3::default();
        let server = s3.serve_with(Some(show(&place, &shown)));
        std::fs::write(place.path("secret"), "s3cret").unwrap();
        let (ca, secret) = (place.text("ca.pem"), place.text("secret"));
        place.start(&sinks(&format!(
            "[[sink]]\nkind = \"object_store\"\nbucket = \"calls\"\nendpoint = \"https://{}\"\n\
             access_key = \"me\"\nsecret_key_file = \"{secret}\"\nca_file = \"{ca}\"\n\
             timeout_s = 5\n",
            server.address
        )));
        judge(&place, refused);
        assert_eq!(s3.state().requests.is_empty(), refused.is_some());
    }
}

#[test]
fn a_recogniser_hears_nothing_unless_it_proves_who_it_is() {
    for (shown, refused) in CASES {
        let mut place = Place::new(0, 0);
        let tls = show(&place, &shown);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let attempts = Arc::new(AtomicUsize::new(0));
        let (messages, counted) = (Arc::clone(&heard), Arc::clone(&attempts));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
                let stream = rustls::StreamOwned::new(connection, stream.unwrap());
                let accepted = accept(stream);
                counted.fetch_add(1, SeqCst);
                let Ok(mut socket) = accepted else { continue };
                while let Ok(message) = socket.read() {
                    messages.lock().unwrap().push(message);
                }
            }
        });
        let ca = place.text("ca.pem");
        place.start(&sinks(&format!(
            "[[sink]]\nkind = \"pcm\"\nurl = \"wss://{address}/t0ken\"\nca_file = \"{ca}\"\n\
             channels = [\"caller\"]\n"
        )));
        let dispatcher = place.dispatcher.as_ref().unwrap();
        dispatcher.begin_recording(crate::pcm::meta(), 8000, "PCMU");
        for _ in 0..20 {
            let sound = crate::pcm::piece(3);
            dispatcher.append_pcm(&crate::pcm::CALL_ID.into(), RecordingChannel::Caller, sound);
        }
        wait_for("an attempt, or the sound", || {
            let heard = heard.lock().unwrap();
            let sound = heard.iter().any(Message::is_binary);
            let done = match refused {
                None => sound,
                Some(_) => attempts.load(SeqCst) > 0,
            };
            done.then_some(())
        });
        assert_eq!(heard.lock().unwrap().is_empty(), refused.is_some());
    }
}
