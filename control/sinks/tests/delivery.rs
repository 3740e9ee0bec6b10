//! Sinks against real endpoints on loopback: directories, a server that speaks S3, web servers, sockets.

mod support;

#[path = "delivery/directory.rs"]
mod directory;
#[path = "delivery/http.rs"]
mod http;
#[path = "delivery/object_store.rs"]
mod object_store;
#[path = "delivery/pcm.rs"]
mod pcm;
#[path = "delivery/place.rs"]
mod place;
#[path = "delivery/s3.rs"]
mod s3;
#[path = "delivery/tls.rs"]
mod tls;
#[path = "delivery/webhook.rs"]
mod webhook;
