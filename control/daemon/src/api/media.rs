//! A recording's media: `…/sn3` and `…/wav`, converted while they are sent, in bounded memory.

use super::Shared;
use super::error::ApiError;
use super::recordings::find;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trunkline_audio::{AudioError, Plan};
use trunkline_sinks::catalog::StoredRecording;
use trunkline_sinks::library::{Library, wav_plan, write_wav_of};
use trunkline_sn3::Capture;

/// Bytes handed over at once, and how many of these may wait for the client.
const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS_WAITING_MAX: usize = 4;

type Chunk = Result<Bytes, io::Error>;

/// What a conversion knows before its first byte.
pub(super) struct Begun {
    pub(super) length: Option<u64>,
}

/// A converter in two steps: everything that can fail before the answer's head, then the bytes.
pub(super) trait Convert: Send + 'static {
    type Ready;
    fn prepare(&self, capture: &Capture) -> Result<(Self::Ready, Begun), ApiError>;
    fn write(&self, capture: &Capture, ready: &Self::Ready, out: &mut dyn Write) -> io::Result<()>;
}

struct Wav;

impl Convert for Wav {
    type Ready = Plan;

    fn prepare(&self, capture: &Capture) -> Result<(Plan, Begun), ApiError> {
        let plan = wav_plan(capture).map_err(|error| match error {
            AudioError::TooLong { .. } => ApiError::conflict("the recording is too long for a WAV"),
            error => ApiError::internal(error.to_string()),
        })?;
        let length = Some(plan.wav_bytes());
        Ok((plan, Begun { length }))
    }

    fn write(&self, capture: &Capture, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
        write_wav_of(capture, plan, out)
    }
}

struct Sn3;

impl Convert for Sn3 {
    type Ready = ();

    fn prepare(&self, _capture: &Capture) -> Result<((), Begun), ApiError> {
        Ok(((), Begun { length: None }))
    }

    fn write(&self, capture: &Capture, (): &(), out: &mut dyn Write) -> io::Result<()> {
        capture.export(out).map(drop)
    }
}

/// The recording as stereo WAV.
pub(super) async fn wav(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    send(&shared, &id, Wav, "audio/wav", "wav").await
}

/// The recording as classic SN3.
pub(super) async fn sn3(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    send(&shared, &id, Sn3, "application/octet-stream", "sn3").await
}

pub(super) async fn send<C: Convert>(
    shared: &Shared,
    id: &str,
    converter: C,
    content_type: &str,
    extension: &str,
) -> Result<Response, ApiError> {
    let stored = find(shared, id).await?;
    if stored.is_deleted() {
        return Err(ApiError::gone("the recording's media was deleted"));
    }
    let turn = std::sync::Arc::clone(&shared.conversions)
        .acquire_owned()
        .await;
    let turn = turn.map_err(|_| ApiError::unavailable("the API is stopping"))?;
    let library = std::sync::Arc::clone(&shared.context.library);
    let (begun_sender, begun) = tokio::sync::oneshot::channel();
    let (chunks, receiver) = mpsc::channel::<Chunk>(CHUNKS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        convert(&library, &stored, &converter, begun_sender, chunks);
    });
    let begun = begun
        .await
        .map_err(|_| ApiError::internal("the conversion failed"))??;
    let name = format!("attachment; filename=\"{id}.{extension}\"");
    let mut response = Response::builder()
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_DISPOSITION, name);
    if let Some(length) = begun.length {
        response = response.header(CONTENT_LENGTH, length);
    }
    response
        .body(Body::from_stream(ReceiverStream::new(receiver)))
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Runs on a thread that may wait for the disk and for the client.
fn convert<C: Convert>(
    library: &Library,
    stored: &StoredRecording,
    converter: &C,
    begun: tokio::sync::oneshot::Sender<Result<Begun, ApiError>>,
    chunks: mpsc::Sender<Chunk>,
) {
    let prepared = open(library, stored).and_then(|capture| {
        converter
            .prepare(&capture)
            .map(|(ready, begun)| (capture, ready, begun))
    });
    let (capture, ready) = match prepared {
        Ok((capture, ready, head)) => {
            if begun.send(Ok(head)).is_err() {
                return;
            }
            (capture, ready)
        }
        Err(error) => {
            // A client that left does not need the answer.
            let _ = begun.send(Err(error));
            return;
        }
    };
    let mut out = ChunkWriter {
        chunks,
        buffer: Vec::with_capacity(CHUNK_BYTES),
    };
    let written = converter
        .write(&capture, &ready, &mut out)
        .and_then(|()| out.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        tracing::warn!(recording = stored.recording.id, %error, "a conversion broke off");
        // The error makes the server cut the connection, so that the client sees a short body.
        let _ = out.chunks.blocking_send(Err(error));
    }
}

fn open(library: &Library, stored: &StoredRecording) -> Result<Capture, ApiError> {
    let opened = library.capture(stored);
    let opened = opened.map_err(|error| ApiError::internal(error.to_string()))?;
    opened.ok_or_else(|| ApiError::not_found("nothing of this recording is on disk"))
}

/// Hands written bytes over in chunks; waits while the client is slow.
struct ChunkWriter {
    chunks: mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        // Nobody receives any more: the client left.
        self.chunks
            .blocking_send(Ok(chunk.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
