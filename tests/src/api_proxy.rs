//! A road to the API server on which requests are counted, lost, refused or held up.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::kubeconfig::{self, Credential, Kubeconfig};
use crate::proxy::Loss;
use crate::server::unique;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, Failure>>;

/// How a request fares.
#[derive(Clone)]
pub enum Fault {
    /// It or its answer is lost, and the connection ends.
    Lose(Loss),
    /// It never reaches the API server, and this is the answer.
    Answer(StatusCode),
    /// It never reaches the API server, and this is made of its body for an answer.
    Reply(StatusCode, fn(&str) -> String),
    /// It never reaches the API server, and the answer has no end.
    Flood(StatusCode),
    /// It is held up for so long before it is passed on.
    Delay(Duration),
    /// This is done before it is passed on.
    Meanwhile(Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>),
}

impl Fault {
    /// Does something of the test's own before a request is passed on.
    pub fn meanwhile<F: Future<Output = ()> + Send + 'static>(act: impl Fn() -> F + Send + Sync + 'static) -> Self {
        Self::Meanwhile(Arc::new(move || Box::pin(act())))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lose(loss) => f.debug_tuple("Lose").field(loss).finish(),
            Self::Answer(status) => f.debug_tuple("Answer").field(status).finish(),
            Self::Reply(status, _) => f.debug_tuple("Reply").field(status).finish(),
            Self::Flood(status) => f.debug_tuple("Flood").field(status).finish(),
            Self::Delay(time) => f.debug_tuple("Delay").field(time).finish(),
            Self::Meanwhile(_) => f.debug_struct("Meanwhile").finish_non_exhaustive(),
        }
    }
}

/// A request that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it wanted.
    pub method: Method,
    /// Of what.
    pub path: String,
    /// With which parameters.
    pub query: String,
}

/// Method and path.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A port of its own, without TLS and for everyone, that leads to the API server as one identity. Requests that change
/// the protocol (exec, port-forward) do not pass.
#[derive(Debug)]
pub struct ApiProxy {
    folder: tempfile::TempDir,
    port: u16,
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Plan {
    seen: Vec<Seen>,
    faults: Vec<(usize, Span, Fault)>,
    struck: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    One,
    Rest,
}

impl ApiProxy {
    /// One that is the admin.
    pub async fn to(cluster: &Cluster) -> Self {
        Self::with(&cluster.kubeconfig()).await
    }

    /// One that is who this file says.
    pub async fn with(kubeconfig: &std::path::Path) -> Self {
        let client = Client::try_from(kubeconfig::config(kubeconfig).await).expect("the settings are whole");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let road = Road { client, plan: Arc::clone(&plan) };
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("the listener stays");
                tokio::spawn(road.clone().serve(stream));
            }
        });
        Self { folder: tempfile::tempdir().expect("a temporary folder"), port, plan, task }
    }

    /// A file whose context, `proxy`, is in this namespace.
    pub fn kubeconfig(&self, namespace: &str) -> PathBuf {
        let path = self.folder.path().join(unique("client").to_string());
        let server = format!("http://127.0.0.1:{}", self.port);
        let credential = Credential::Anonymous;
        Kubeconfig { context: "proxy", server: &server, authority: None, namespace, credential }.write(&path);
        path
    }

    /// Counts from zero again, with this fault for request `number` of all connections together and no other.
    pub fn arm(&self, number: usize, fault: Fault) {
        *lock(&self.plan) = Plan { faults: vec![(number, Span::One, fault)], ..Plan::default() };
    }

    /// Counts from zero again, with this fault for request `number` and every one after it.
    pub fn arm_from(&self, number: usize, fault: Fault) {
        *lock(&self.plan) = Plan { faults: vec![(number, Span::Rest, fault)], ..Plan::default() };
    }

    /// One more fault, for another request.
    pub fn arm_too(&self, number: usize, fault: Fault) {
        lock(&self.plan).faults.push((number, Span::One, fault));
    }

    /// Lets everything pass from now on. How many requests had met a fault.
    pub fn disarm(&self) -> usize {
        let mut plan = lock(&self.plan);
        plan.faults.clear();
        plan.struck
    }

    /// Every request since the proxy was made or armed, those that met a fault too.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.plan).seen.clone()
    }

    /// Counts from zero again; faults stay.
    pub fn forget(&self) {
        lock(&self.plan).seen.clear();
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().expect("nothing panics here")
}

#[derive(Clone)]
struct Road {
    client: Client,
    plan: Arc<Mutex<Plan>>,
}

impl Road {
    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| self.answer(request));
        // Either side may end at any time, and an error of ours is how a connection is cut; that is what this is for.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    /// An error ends the connection without an answer.
    async fn answer(&self, request: Request<Incoming>) -> Result<Reply, Failure> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        match self.note(&parts.method, &parts.uri) {
            Some(Fault::Lose(Loss::Request)) => return Err("the request is lost".into()),
            Some(Fault::Lose(Loss::Answer)) => {
                self.pass(Request::from_parts(parts, body)).await?.into_body().collect().await?;
                return Err("the answer is lost".into());
            }
            Some(Fault::Answer(status)) => return Ok(refusal(status)),
            Some(Fault::Reply(status, words)) => {
                return Ok(reply(status, words(&String::from_utf8_lossy(&body))));
            }
            Some(Fault::Flood(status)) => return Ok(flood(status)),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Meanwhile(act)) => act().await,
            None => {}
        }
        self.pass(Request::from_parts(parts, body)).await
    }

    async fn pass(&self, mut request: Request<Bytes>) -> Result<Reply, Failure> {
        // Ours, not the API server's.
        request.headers_mut().remove(HOST);
        let answer = self.client.send(request.map(Body::from)).await?;
        Ok(answer.map(|body| body.map_err(Failure::from).boxed_unsync()))
    }

    fn note(&self, method: &Method, uri: &hyper::Uri) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        let number = plan.seen.len();
        let query = uri.query().unwrap_or_default().trim_start_matches('&').to_owned();
        plan.seen.push(Seen { method: method.clone(), path: uri.path().to_owned(), query });
        let meets = |(at, span, _): &&(usize, Span, Fault)| *at == number || (*span == Span::Rest && *at < number);
        let fault = plan.faults.iter().find(meets).map(|(_, _, fault)| fault.clone())?;
        plan.struck += 1;
        Some(fault)
    }
}

/// What an API server says with such a status.
fn refusal(status: StatusCode) -> Reply {
    let reason = status.canonical_reason().unwrap_or_default().replace(' ', "");
    let content = json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": format!("the test has asked for {status}"),
        "reason": reason,
        "code": status.as_u16(),
    });
    reply(status, content.to_string())
}

fn reply(status: StatusCode, body: String) -> Reply {
    let body = Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    headed(status, body)
}

/// Blanks, which a parser of JSON reads for ever.
fn flood(status: StatusCode) -> Reply {
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let pieces = futures_util::stream::repeat_with(move || Ok::<_, Failure>(Frame::data(piece.clone())));
    headed(status, StreamBody::new(pieces).boxed_unsync())
}

fn headed(status: StatusCode, body: UnsyncBoxBody<Bytes, Failure>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a header"));
    reply
}
