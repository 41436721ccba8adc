//! An object store that speaks S3, on a port of its own, whose answers can be lost or refused.
//!
//! It is `s3s` with its store on disk: of the servers that speak S3 it is the one that is a crate, so that nothing has to be
//! installed and its requests can be disturbed from within. It checks signatures. What it lacks is `If-None-Match` and lists by
//! folder, which stand here, before it. Newer versions of it have that, and pin digests that other crates of this workspace have newer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, IF_NONE_MATCH};
use hyper::service::{Service as _, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3ServiceBuilder, SharedS3Service};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::proxy::Loss;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Reply = Response<UnsyncBoxBody<Bytes, Failure>>;

const BUCKET: &str = "backups";
const ACCESS_KEY: &str = "AKIDTEST";
const SECRET_KEY: &str = "m4rker-secret-key";

/// How a request fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It or its answer is lost, and the connection ends.
    Lose(Loss),
    /// The server refuses it, with this code of S3's.
    Answer(StatusCode, &'static str),
}

/// A running server with one bucket.
#[derive(Debug)]
pub struct ObjectServer {
    root: TempDir,
    port: u16,
    plan: Arc<Mutex<Plan>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Plan {
    fault: Option<(Method, &'static str, usize, Fault)>,
    struck: usize,
    /// It overwrites whatever is there, as old servers do.
    forgets_conditions: bool,
}

impl ObjectServer {
    /// One that is empty and well.
    pub async fn start() -> Self {
        let root = TempDir::new().expect("a folder");
        std::fs::create_dir(root.path().join(BUCKET)).expect("the folder is ours");
        let files = s3s_fs::FileSystem::new(root.path()).expect("the folder is there");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build().into_shared();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let plan: Arc<Mutex<Plan>> = Arc::default();
        let front = Arc::new(Front {
            service,
            plan: Arc::clone(&plan),
            root: root.path().to_owned(),
            one_writer: tokio::sync::Mutex::default(),
        });
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("the listener stays");
                let front = Arc::clone(&front);
                let serve = service_fn(move |request| Arc::clone(&front).answer(request));
                // A client that goes away is no fault.
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), serve));
            }
        });
        Self { root, port, plan, task }
    }

    /// A folder in its bucket.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/shareddb")
    }

    /// The variables that lead there.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// What must be shown nowhere.
    pub fn secret(&self) -> &'static str {
        SECRET_KEY
    }

    /// From now on the next `times` requests with this method and `word` in their path or query fare like this.
    pub fn breaks(&self, method: Method, word: &'static str, times: usize, fault: Fault) {
        let mut plan = lock(&self.plan);
        plan.fault = Some((method, word, times, fault));
        plan.struck = 0;
    }

    /// All is well again. How many requests fared badly.
    pub fn heals(&self) -> usize {
        let mut plan = lock(&self.plan);
        plan.fault = None;
        plan.struck
    }

    /// From now on nobody can ask it to write only what is not there: it overwrites, as old servers do.
    pub fn forget_conditions(&self) {
        lock(&self.plan).forgets_conditions = true;
    }

    /// Objects, and parts of some, as they lie on its disk.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the folder is ours").map(|entry| entry.expect("it is there"))
            {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().expect("nobody panics with it")
}

/// What stands before the server.
struct Front {
    service: SharedS3Service,
    plan: Arc<Mutex<Plan>>,
    root: PathBuf,
    /// Between the look and the write nobody else writes.
    one_writer: tokio::sync::Mutex<()>,
}

impl Front {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Reply, Failure> {
        match self.fault(&request) {
            Some(Fault::Lose(Loss::Request)) => Err("the request is lost".into()),
            Some(Fault::Lose(Loss::Answer)) => {
                // Done to its end: the answer says that the work is.
                let answer = self.serve(request).await?;
                answer.into_body().collect().await?;
                Err("the answer is lost".into())
            }
            Some(Fault::Answer(status, code)) => {
                // Read to its end: a connection that ends before is another fault.
                request.into_body().collect().await?;
                Ok(refusal(status, code))
            }
            None => self.serve(request).await,
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Reply, Failure> {
        let conditional = request.headers().contains_key(IF_NONE_MATCH) && !lock(&self.plan).forgets_conditions;
        let _alone = if conditional { Some(self.one_writer.lock().await) } else { None };
        if conditional && self.root.join(Path::new(request.uri().path().trim_start_matches('/'))).is_file() {
            request.into_body().collect().await?;
            return Ok(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
        }
        let by_folder = request.uri().query().is_some_and(|query| query.contains("delimiter="));
        let answer = self.service.call(request).await.map_err(|error| Failure::from(error.to_string()))?;
        if !by_folder || answer.status() != StatusCode::OK {
            return Ok(answer.map(|body| body.map_err(Failure::from).boxed_unsync()));
        }
        let (mut head, body) = answer.into_parts();
        let list = body.collect().await.map_err(|error| Failure::from(error.to_string()))?.to_bytes();
        head.headers.remove(CONTENT_LENGTH);
        let list = Bytes::from(grouped(&String::from_utf8(list.into())?));
        Ok(Response::from_parts(head, Full::new(list).map_err(|never| match never {}).boxed_unsync()))
    }

    fn fault(&self, request: &Request<Incoming>) -> Option<Fault> {
        let mut plan = lock(&self.plan);
        let (method, word, times, fault) = plan.fault.clone()?;
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        if plan.struck == times || request.method() != method || !target.contains(word) {
            return None;
        }
        plan.struck += 1;
        Some(fault)
    }
}

/// A list of objects with one entry for each folder in the place of what is in it.
fn grouped(list: &str) -> String {
    let within = |text: &str, tag: &str| -> Option<String> {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
    };
    let prefix = within(list, "Prefix").unwrap_or_default();
    let (mut text, mut folders) = (String::new(), BTreeSet::new());
    for piece in list.split("<Contents>") {
        let Some((item, rest)) = piece.split_once("</Contents>") else {
            text += piece;
            continue;
        };
        let key = within(item, "Key").unwrap_or_default();
        match key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) {
            Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
            None => text += &format!("<Contents>{item}</Contents>"),
        }
        text += rest;
    }
    let folders = folders.iter().map(|folder| format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
    text.replace("</ListBucketResult>", &format!("{}</ListBucketResult>", folders.collect::<String>()))
}

fn refusal(status: StatusCode, code: &str) -> Reply {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Told to</Message></Error>");
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).expect("a status and a body")
}
