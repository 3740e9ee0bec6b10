//! Files by io_uring: several chunks under way at once.

use super::{CHUNKS_WAITING_MAX, Incoming};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;
use tokio_uring::Runtime;
use tokio_uring::fs::File;

fn runtime() -> io::Result<Runtime> {
    Runtime::new(&tokio_uring::builder())
}

/// Kernels and containers may forbid io_uring; it is tried once.
pub(super) fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| match runtime() {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "files are not written by io_uring");
            false
        }
    })
}

pub(super) fn write(path: &Path, mut chunks: Incoming) -> io::Result<()> {
    runtime()?.block_on(async {
        let file = Rc::new(File::create(path).await?);
        let mut under_way = VecDeque::new();
        let mut offset = 0;
        while let Some(chunk) = chunks.recv().await {
            if under_way.len() >= CHUNKS_WAITING_MAX
                && let Some(oldest) = under_way.pop_front()
            {
                finish(oldest).await?;
            }
            let (file, at) = (Rc::clone(&file), offset);
            offset += chunk.len() as u64;
            under_way.push_back(tokio_uring::spawn(async move {
                let (result, _) = file.write_all_at(chunk, at).await;
                result
            }));
        }
        for one in under_way {
            finish(one).await?;
        }
        file.sync_all().await
    })
}

async fn finish(write: tokio::task::JoinHandle<io::Result<()>>) -> io::Result<()> {
    write.await.map_err(io::Error::other)?
}
