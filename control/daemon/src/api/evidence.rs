//! `…/evidence`: everything that is known of a finished recording, as one archive.

use super::Shared;
use super::error::ApiError;
use super::media::{Begun, Convert, send};
use super::recordings::{blocking, find};
use axum::extract::{Path, State};
use axum::response::Response;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{Call, Recording};
use trunkline_sn3::Capture;
use trunkline_sn3::evidence::Evidence;
use trunkline_sn3::proof::Signer;

struct Archive {
    recording: Recording,
    call: Option<Call>,
    signer: Option<Arc<Signer>>,
    /// The archive is put together here, in a file without a name.
    directory: PathBuf,
}

impl Archive {
    fn build(&self, capture: &Capture) -> io::Result<File> {
        let evidence = Evidence {
            recording: serde_json::to_value(&self.recording)?,
            call: self.call.as_ref().map(serde_json::to_value).transpose()?,
            cdr: None,
            capture,
            made_at: Timestamp::now().to_string(),
        };
        let file = tempfile::tempfile_in(&self.directory)?;
        evidence.write(file, self.signer.as_deref())
    }
}

impl Convert for Archive {
    type Ready = File;

    fn prepare(&self, capture: &Capture) -> Result<(File, Begun), ApiError> {
        let built = self.build(capture).and_then(|mut file| {
            let length = file.stream_position()?;
            file.rewind()?;
            Ok((file, length))
        });
        let (file, length) = built.map_err(|error| ApiError::internal(error.to_string()))?;
        let length = Some(length);
        Ok((file, Begun { length }))
    }

    fn write(&self, _: &Capture, mut file: &File, out: &mut dyn Write) -> io::Result<()> {
        io::copy(&mut file, out).map(drop)
    }
}

/// The evidence archive of a recording.
pub(super) async fn evidence(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let recording = find(&shared, &id).await?.recording;
    if !recording.state.is_final() {
        return Err(ApiError::conflict("the recording is still being made"));
    }
    let call_id = recording.call_id.clone();
    let call = blocking(&shared, move |catalog| catalog.call(&call_id)).await?;
    let archive = Archive {
        recording,
        call,
        signer: shared.context.signer.clone(),
        directory: shared.context.data_dir.clone(),
    };
    send(&shared, &id, archive, "application/x-tar", "evidence.tar").await
}
