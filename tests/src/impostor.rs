//! Somebody who answers where a PostgreSQL server should: no server, but an attacker who wants the password.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// "Tell me the password in clear text."
pub const CLEAR_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// "I have something to remark", so that the question is not the first thing said.
pub const REMARK: &[u8] = b"N\0\0\0\x0aMR\0\0\0\0";

/// How a client asks for TLS: the length of the packet, and a number in the place of a version.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// One who refuses TLS, answers every login with the same bytes, and keeps all that is said.
#[derive(Debug)]
pub struct Impostor {
    port: u16,
    conversations: UnboundedReceiver<Vec<u8>>,
}

impl Impostor {
    /// Takes logins until the runtime of the test ends.
    pub async fn answering(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let port = listener.local_addr().expect("it listens").port();
        let (sender, conversations) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, answer.clone(), sender.clone()));
            }
        });
        Self { port, conversations }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All that one client said, once it has hung up.
    pub async fn heard(&mut self) -> Vec<u8> {
        self.conversations.recv().await.expect("it listens as long as the test runs")
    }
}

/// Says its answer byte by byte, as a network may deliver it.
async fn converse(mut stream: TcpStream, answer: Vec<u8>, told: UnboundedSender<Vec<u8>>) {
    let mut heard = Vec::new();
    // A client may hang up at any point: what it said until then counts.
    let _ = async {
        stream.set_nodelay(true)?;
        let mut length = stream.read_u32().await?;
        heard.extend(length.to_be_bytes());
        if length == 8 {
            heard.extend(stream.read_u32().await?.to_be_bytes());
            assert_eq!(heard, TLS_REQUEST, "nothing else is that short");
            stream.write_all(b"N").await?;
            length = stream.read_u32().await?;
        }
        let mut greeting = vec![0; length as usize - 4];
        stream.read_exact(&mut greeting).await?;
        heard.extend(greeting);
        for byte in answer {
            stream.write_all(&[byte]).await?;
        }
        stream.read_to_end(&mut heard).await
    }
    .await;
    let _ = told.send(heard);
}
