//! Files by tokio.

use super::Incoming;
use std::io;
use std::path::Path;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

pub(super) fn write(path: &Path, mut chunks: Incoming) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut file = File::create(path).await?;
        while let Some(chunk) = chunks.recv().await {
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        file.sync_all().await
    })
}
