//! A web proxy as companies have them: it carries what it is asked to with CONNECT.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// One on a port of its own, for as long as the runtime of the test.
#[derive(Debug)]
pub struct WebProxy {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl WebProxy {
    /// One that serves who sends this header, or everybody.
    pub async fn start(header: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = listener.local_addr().expect("it listens").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, header, Arc::clone(&seen)));
            }
        });
        Self { port, requests }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where clients wanted to be carried since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().expect("nothing panics here"))
    }
}

/// Either side may hang up at any point.
async fn carry(mut client: TcpStream, header: Option<&str>, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("a request is text");
    let line = head.lines().next().unwrap_or_default();
    seen.lock().expect("nothing panics here").push(line.to_owned());
    let known = |wanted: &str| head.lines().any(|line| line.eq_ignore_ascii_case(wanted));
    let (Some(target), true) = (line.strip_prefix("CONNECT "), header.is_none_or(known)) else {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await;
    };
    let mut server = TcpStream::connect(target.split(' ').next().unwrap_or_default()).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
