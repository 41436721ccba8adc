//! A server that is far away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A port of its own that leads to the server's; what is sent there is under way for a while.
#[derive(Debug)]
pub struct Distance {
    port: u16,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Way {
    micros: AtomicU64,
    connections: AtomicUsize,
}

impl Distance {
    /// One that leads to a port on this machine.
    pub async fn to(server: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let way = Arc::<Way>::default();
        let shared = Arc::clone(&way);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("the listener stays");
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let way = Arc::clone(&shared);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    // Either side may end at any time.
                    let _ = way.carry(client, server).await;
                });
            }
        });
        let distance = Self { port, way, task };
        distance.set(delay);
        distance
    }

    /// Where to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it takes so long.
    pub fn set(&self, delay: Duration) {
        self.way.micros.store(u64::try_from(delay.as_micros()).expect("not for ever"), Ordering::Relaxed);
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.way.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Way {
    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((mut asks, mut hears), (mut answers, mut does)) = (client.split(), server.split());
        let there = async {
            let mut bytes = [0; 8192];
            loop {
                let count = asks.read(&mut bytes).await?;
                sleep(Duration::from_micros(self.micros.load(Ordering::Relaxed))).await;
                if count == 0 {
                    return does.shutdown().await;
                }
                does.write_all(&bytes[..count]).await?;
            }
        };
        let back = async { tokio::io::copy(&mut answers, &mut hears).await.map(drop) };
        tokio::select! { ended = there => ended, ended = back => ended }
    }
}
