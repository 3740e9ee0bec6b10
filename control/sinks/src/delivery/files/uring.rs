//! Files by io_uring: several chunks under way at once.

use super::{CHUNKS_WAITING_MAX, Incoming};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use tokio_uring::fs::File;

pub(super) fn write(path: &Path, mut chunks: Incoming) -> io::Result<()> {
    tokio_uring::start(async {
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
