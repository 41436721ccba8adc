//! A road to the server on which one request, or its answer, is lost.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a request fares. The connection ends either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It never reaches the server.
    Request,
    /// The server does it, and the answer is lost.
    Answer,
}

/// A port of its own that leads to the server's.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Plan {
    /// Requests seen on all connections since the proxy was armed.
    seen: usize,
    loss: Option<(usize, Loss)>,
    struck: bool,
    /// Statements that wait for their answer, on all connections.
    in_flight: usize,
    rounds: usize,
}

impl Proxy {
    /// One that leads to a port on this machine, and loses nothing yet.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let shared = Arc::clone(&plan);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("the listener stays");
                let plan = Arc::clone(&shared);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    // Either side may end at any time; that is what this is for.
                    let _ = Road { client, server, plan }.carry().await;
                });
            }
        });
        Self { port, plan, task }
    }

    /// Where to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counts from zero again, and loses request `number` of all connections together.
    pub fn arm(&self, number: usize, loss: Loss) {
        *lock(&self.plan) = Plan { loss: Some((number, loss)), ..Plan::default() };
    }

    /// Counts from zero again, and loses nothing.
    pub fn watch(&self) {
        *lock(&self.plan) = Plan::default();
    }

    /// How often somebody waited for the server, logins left out: statements that are under way together are one time.
    pub fn rounds(&self) -> usize {
        lock(&self.plan).rounds
    }

    /// Loses nothing any more. Whether it had.
    pub fn disarm(&self) -> bool {
        let mut plan = lock(&self.plan);
        plan.loss = None;
        plan.struck
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().expect("nothing panics here")
}

struct Road {
    client: TcpStream,
    server: TcpStream,
    plan: Arc<Mutex<Plan>>,
}

impl Road {
    async fn carry(mut self) -> std::io::Result<()> {
        self.client.set_nodelay(true)?;
        self.server.set_nodelay(true)?;
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        let mut greeted = false;
        // Messages of a request that is not whole yet.
        let mut held = Vec::new();
        let mut open_requests = 0_usize;
        let mut open_statements = 0_usize;
        let mut silent = false;
        loop {
            tokio::select! {
                read = self.client.read_buf(&mut asked) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(message) = take_message(&mut asked, !greeted) {
                        let kind = Kind::of(&message, greeted);
                        if greeted && matches!(message[0], b'Q' | b'S') {
                            open_statements += 1;
                            self.depart();
                        }
                        greeted = true;
                        held.extend(message);
                        let loss = if kind == Kind::Request && !silent { self.count() } else { None };
                        match loss {
                            Some(Loss::Request) => return Ok(()),
                            Some(Loss::Answer) => silent = true,
                            None if silent => {
                                held.clear();
                                continue;
                            }
                            None => {}
                        }
                        if kind != Kind::Part {
                            self.server.write_all(&std::mem::take(&mut held)).await?;
                        }
                        open_requests += usize::from(kind == Kind::Request);
                    }
                }
                read = self.server.read_buf(&mut answered) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(message) = take_message(&mut answered, false) {
                        open_requests = open_requests.saturating_sub(usize::from(ends_answer(&message)));
                        // The first one ends the login.
                        if message[0] == b'Z' && open_statements > 0 {
                            open_statements -= 1;
                            lock(&self.plan).in_flight -= 1;
                        }
                        if !silent {
                            self.client.write_all(&message).await?;
                        }
                    }
                    if silent && open_requests == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// A statement is on its way: somebody begins to wait, unless somebody did already.
    fn depart(&self) {
        let mut plan = lock(&self.plan);
        plan.rounds += usize::from(plan.in_flight == 0);
        plan.in_flight += 1;
    }

    fn count(&self) -> Option<Loss> {
        let mut plan = lock(&self.plan);
        let number = plan.seen;
        plan.seen += 1;
        let (_, loss) = plan.loss.filter(|(at, _)| *at == number)?;
        plan.struck = true;
        Some(loss)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The last message of a request: an answer follows.
    Request,
    /// More of the same request follows.
    Part,
    /// A farewell.
    Other,
}

impl Kind {
    /// A start-up, a step of the password's proof, a simple query, or the Sync behind an extended one.
    fn of(message: &[u8], greeted: bool) -> Self {
        match message[0] {
            _ if !greeted => Self::Request,
            b'p' | b'Q' | b'S' => Self::Request,
            b'X' => Self::Other,
            _ => Self::Part,
        }
    }
}

/// The next whole message: a type, except in a start-up, then four bytes of length that count themselves.
fn take_message(bytes: &mut Vec<u8>, startup: bool) -> Option<Vec<u8>> {
    let tag = usize::from(!startup);
    let length: [u8; 4] = bytes.get(tag..tag + 4)?.try_into().expect("four bytes");
    let end = tag + u32::from_be_bytes(length) as usize;
    (bytes.len() >= end).then(|| bytes.drain(..end).collect())
}

/// ReadyForQuery, or a request for the next step of the password's proof.
fn ends_answer(message: &[u8]) -> bool {
    match message {
        [b'Z', ..] => true,
        [b'R', _, _, _, _, code @ ..] => !matches!(code, [0, 0, 0, 0 | 12, ..]),
        _ => false,
    }
}
