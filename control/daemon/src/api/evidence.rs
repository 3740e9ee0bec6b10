//! `…/evidence`: everything that is known of a finished recording, as one archive.

use super::Shared;
use super::error::ApiError;
use super::media::{Begun, Convert, send};
use super::query::{Pairs, Parameters};
use super::recordings::find;
use axum::extract::{Path, State};
use axum::response::Response;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use trunkline_sinks::catalog::StoredRecording;
use trunkline_sinks::library::Library;
use trunkline_sn3::Capture;
use trunkline_sn3::evidence::KeyChoice;

struct Archive {
    library: Arc<Library>,
    stored: StoredRecording,
    key: KeyChoice,
}

impl Convert for Archive {
    type Ready = File;

    fn prepare(&self, capture: &Capture) -> Result<(File, Begun), ApiError> {
        let entry = self.library.entry_of(self.stored.clone())?;
        let built = self.library.evidence(&entry, capture, self.key);
        let (file, length) = built.map_err(|error| ApiError::internal(error.to_string()))?;
        let length = Some(length);
        Ok((file, Begun { length }))
    }

    fn write(&self, _: &Capture, mut file: &File, out: &mut dyn Write) -> io::Result<()> {
        io::copy(&mut file, out).map(drop)
    }
}

/// The evidence archive of a recording. `key=include` puts the key of an encrypted one into it.
pub(super) async fn evidence(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let key = parameters.key_choice()?;
    parameters.finish()?;
    let stored = find(&shared, &id).await?;
    if !stored.recording.state.is_final() {
        return Err(ApiError::conflict("the recording is still being made"));
    }
    let archive = Archive {
        library: Arc::clone(&shared.context.library),
        stored,
        key,
    };
    send(&shared, &id, archive, "application/x-tar", "evidence.tar").await
}
