//! The API's thread.

use super::{ApiContext, router};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How long requests in progress may go on after a stop.
const GRACE: Duration = Duration::from_millis(500);

/// The running API. Dropping it stops it.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Binds and starts serving on a thread of its own.
    ///
    /// # Errors
    /// The address cannot be bound (said with the address), or no thread started.
    pub fn start(address: SocketAddr, context: ApiContext) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("control.http {address}: {error}"))
        };
        let listener = TcpListener::bind(address).map_err(named)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stopping, stopped) = watch::channel(false);
        let router = router(context, stopped.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .thread_name("api-blocking")
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("api".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(listener, router, stopped)) {
                    tracing::error!(%error, "the API ended");
                }
                // A conversion that waits for a client that reads nothing must not hold up the exit.
                runtime.shutdown_timeout(GRACE);
            })?;
        Ok(Self {
            address,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    router: axum::Router,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut asked = stopped.clone();
    let graceful = async move {
        // An error means that the server object is gone, which is a stop as well.
        let _ = asked.wait_for(|stop| *stop).await;
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let deadline = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = deadline => Ok(()),
    }
}
