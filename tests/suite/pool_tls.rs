//! A pool over encrypted connections: what it sends beside them is encrypted as well.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shareddb_core::{Pool, PoolOptions, RootCertificate, SslMode};
use shareddb_tests::TestServer;
use shareddb_tests::certificates::Authority;
use shareddb_tests::server::unique;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What a client asks for TLS with.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// The number that a request to cancel bears in the place of a version.
const CANCEL: [u8; 4] = [4, 210, 22, 46];

/// A road to a server, and what went along it, connection by connection.
struct Tap {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let all = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                tokio::spawn(carry(client, server, Arc::clone(&all), number));
            }
        });
        Self { port, heard }
    }
}

async fn carry(client: TcpStream, server: u16, all: Arc<Mutex<Vec<Vec<u8>>>>, number: usize) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = tokio::spawn(async move {
        let _ = copy(&mut from_server, &mut to_client).await;
        to_client.shutdown().await
    });
    let mut bytes = vec![0; 16_384];
    loop {
        let count = from_client.read(&mut bytes).await?;
        if count == 0 {
            break;
        }
        all.lock().unwrap()[number].extend_from_slice(&bytes[..count]);
        to_server.write_all(&bytes[..count]).await?;
    }
    to_server.shutdown().await?;
    answers.await.unwrap()
}

#[tokio::test]
async fn a_cancel_goes_encrypted_and_holds_up_nobody() {
    let server = TestServer::start().await;
    let authority = Authority::new("pool test");
    server.encrypt(&authority).await;
    let config = server.app(&unique("tls")).await;
    let tap = Tap::to(config.port()).await;
    let config =
        config.with_port(tap.port).with_tls(SslMode::VerifyFull, Some(RootCertificate::pem(authority.certificate())));
    let pool = Pool::with_options(config, PoolOptions { size: 1, ..PoolOptions::default() }).unwrap();
    let client = pool.get().await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    timeout(Duration::from_millis(100), client.query("SELECT pg_sleep(30)", &[])).await.unwrap_err();
    let started = Instant::now();
    drop(client);
    let client = pool.get().await.unwrap();
    let took = started.elapsed();
    // Far less than the statement would take; how much less is for the benchmark to say.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0), pid);

    let heard = tap.heard.lock().unwrap().clone();
    assert!(heard.len() >= 2, "a login, and a cancel that may have been repeated");
    for bytes in heard {
        assert!(bytes.starts_with(&TLS_REQUEST), "{bytes:?}");
        assert!(!bytes.windows(CANCEL.len()).any(|window| window == CANCEL), "{bytes:?}");
    }
}
