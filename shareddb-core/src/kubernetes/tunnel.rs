//! A way to a Service from outside the cluster: port-forwards of the Kubernetes API, offered as an address of this machine.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Resource;
use kube::api::Portforwarder;
use kube::core::params::{GetParams, ListParams};
use kube::core::{ObjectList, Request};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_buf, sink, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::backend::{Aim, Backend};
use super::role::Task;
use super::{Answer, Namespace};
use crate::error::{Error, Result, cut_by, shell_word, shortened};

/// How long a new connection waits for a pod that is ready, such as the one that takes the place of another.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// How long what is under way may still arrive after one side has ended.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are carried at once.
const CHUNK: usize = 64 << 10;

/// A port of a Service, as an address of this machine, for as long as this value lives.
///
/// Each connection to the address becomes a port-forward to a pod of the Service that is ready at that moment; so a pod may be
/// replaced meanwhile, and only its own connections end. Whoever is on this machine can connect, as with `kubectl
/// port-forward`, and still has to log in. Dropping it ends the listener at once, and every connection after a moment: the goodbye
/// of a session that ends with it is still carried, as long as the runtime runs.
pub struct Tunnel {
    address: SocketAddr,
    way: Arc<Way>,
    /// Its end is that of the tunnel.
    _open: oneshot::Sender<()>,
}

/// What all connections of a tunnel have in common.
struct Way {
    namespace: Namespace,
    service: String,
    aim: Aim,
    /// What went wrong last, and has not been asked for yet.
    trouble: Mutex<Option<Error>>,
}

impl Tunnel {
    /// Opens one. Must be called in a tokio runtime, which carries the connections from then on. No connection is made yet.
    ///
    /// # Errors
    /// `NotFound` with the code `service_not_found`, `Conflict` when the Service cannot be followed to a port of pods;
    /// `Unavailable` with the code `pod_not_ready` when no pod is ready, and what there is instead; `PermissionDenied` when
    /// a right is missing, and those of the API.
    pub async fn open(namespace: &Namespace, service: &str, port: u16) -> Result<Self> {
        let aim = aim(namespace, service, port).await?;
        let trouble = Mutex::new(None);
        let way = Arc::new(Way { namespace: namespace.clone(), service: service.to_owned(), aim, trouble });
        way.backend().await?;
        let unbound = |error| Error::from_io("cannot listen on 127.0.0.1", error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let (open, closed) = oneshot::channel();
        tokio::spawn(serve(listener, Arc::clone(&way), closed));
        Ok(Self { address, way, _open: open })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the last connection did not come about or was cut, once. Later ones that come about are the end of it, too.
    pub fn take_trouble(&self) -> Option<Error> {
        self.way.set_trouble(None)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({} to service/{}, {:?})", self.address, self.way.service, self.way.namespace)
    }
}

/// Accepts connections until the tunnel is closed, and ends them a moment later.
async fn serve(listener: TcpListener, way: Arc<Way>, mut closed: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        select! {
            _ = &mut closed => break,
            accepted = listener.accept() => match accepted {
                Ok((local, _)) => drop(connections.spawn(carry(local, Arc::clone(&way)))),
                // Too many open files, or a client that has gone again: the next one may do better.
                Err(error) => {
                    way.set_trouble(Some(Error::from_io("cannot accept a connection of the tunnel", error)));
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    let _ = timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one connection to its end. What goes wrong is noted before the client can notice it.
async fn carry(local: TcpStream, way: Arc<Way>) {
    // As small as the messages of a query are, they are not to wait for each other.
    let _ = local.set_nodelay(true);
    let opened = match timeout(PATIENCE, way.forward()).await {
        Ok(opened) => opened,
        // The trouble of the last attempt says more, if there was one.
        Err(_) => Err(way.set_trouble(None).unwrap_or_else(|| way.late())),
    };
    match opened {
        Ok(forward) => {
            way.set_trouble(None);
            forward.carry(local, &way).await;
        }
        Err(error) => drop(way.set_trouble(Some(error))),
    }
}

impl Way {
    /// A port-forward to a pod that is ready. Waits for one, and for an API that is away; [`PATIENCE`] ends that.
    async fn forward(&self) -> Result<Forward> {
        loop {
            match self.attempt().await {
                // The pod may have gone since it was looked up.
                Err(error) if error.is_retryable() || matches!(error, Error::NotFound(_)) => {
                    self.set_trouble(Some(error));
                }
                done => return done,
            }
            sleep(PAUSE).await;
        }
    }

    async fn attempt(&self) -> Result<Forward> {
        let backend = self.backend().await?;
        let request = self.namespace.forward(&backend.pod, backend.port);
        match call(&self.namespace, "create", ("pods/portforward", &backend.pod), request).await? {
            Some(forwarder) => Ok(Forward { forwarder: Some(forwarder), backend }),
            None => Err(Error::not_found("pod_not_found", format!("pod/{} has gone", backend.pod))),
        }
    }

    async fn backend(&self) -> Result<Backend> {
        let params = ListParams::default().labels(&self.aim.selector);
        let request = requests::<Pod>(&self.namespace).list(&params).map_err(unbuilt)?;
        let pods: ObjectList<Pod> =
            read(&self.namespace, "list", ("pods", ""), request).await?.ok_or_else(unreadable)?;
        self.aim.choose(&pods.items).map_err(|reason| {
            let (context, namespace) = (self.namespace.context(), self.namespace.name());
            let message = format!("no pod of {} is ready: {reason}", describe(&self.namespace, &self.service));
            Error::unavailable("pod_not_ready", message).with_hint(format!(
                "kubectl --context {} describe pods -n {namespace} -l {} says more",
                shell_word(context),
                shell_word(&self.aim.selector),
            ))
        })
    }

    fn late(&self) -> Error {
        let place = describe(&self.namespace, &self.service);
        Error::timeout("api_timeout", format!("no way to a pod of {place} in {PATIENCE:?}"))
    }

    fn set_trouble(&self, trouble: Option<Error>) -> Option<Error> {
        if let Some(error) = &trouble {
            tracing::debug!(%error, "the tunnel has trouble");
        }
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

/// A port-forward. Its task ends with it, whatever the network does.
struct Forward {
    forwarder: Option<Portforwarder>,
    backend: Backend,
}

/// How a connection came to its end.
enum End {
    Local,
    Pod,
    Said(String),
}

impl Forward {
    /// Carries bytes until one side ends; then the other one is ended.
    async fn carry(mut self, mut local: TcpStream, way: &Way) {
        let Some(forwarder) = &mut self.forwarder else { return };
        let port = self.backend.port;
        let (Some(stream), Some(said)) = (forwarder.take_stream(port), forwarder.take_error(port)) else { return };
        let mut said = std::pin::pin!(said.fuse());
        let (from_local, to_local) = local.split();
        let (from_pod, mut to_pod) = split(stream);
        let end = {
            let mut up = std::pin::pin!(async {
                copy(from_local, &mut to_pod).await?;
                to_pod.shutdown().await
            });
            let mut down = std::pin::pin!(copy(from_pod, to_local));
            let end = select! {
                biased;
                Some(text) = &mut said => End::Said(text),
                _ = &mut down => End::Pod,
                _ = &mut up => End::Local,
            };
            if let End::Local = end {
                // What it sent last, such as its goodbye, is on its way still.
                let _ = timeout(LINGER, down).await;
            }
            end
        };
        drop(to_pod);
        let reason = match end {
            End::Local => return,
            End::Said(text) => Some(text),
            End::Pod => match said.now_or_never().flatten() {
                Some(text) => Some(text),
                None => self.fault().await,
            },
        };
        if let Some(reason) = reason {
            way.set_trouble(Some(self.cut(way, &reason)));
        }
        // Bytes that nobody has read would make the system cut the connection, and the server's last words be lost.
        let _ = local.shutdown().await;
        let _ = timeout(LINGER, copy(&mut local, sink())).await;
    }

    /// Why the stream to the API server has ended, if not as one ends.
    async fn fault(&mut self) -> Option<String> {
        let forwarder = self.forwarder.take()?;
        yield_now().await;
        forwarder.abort();
        forwarder.join().await.err().and_then(|error| cut_by(&error))
    }

    fn cut(&self, way: &Way, reason: &str) -> Error {
        let place = describe(&way.namespace, &way.service);
        let Backend { pod, port } = &self.backend;
        let message = format!("the tunnel to port {port} of pod/{pod} of {place} was cut: {}", shortened(reason));
        Error::unavailable("tunnel_cut", message)
            .with_hint("a new connection finds the pod that serves then: run it again")
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.abort();
        }
    }
}

async fn copy(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(CHUNK, from), &mut to).await.map(drop)
}

async fn aim(namespace: &Namespace, service: &str, port: u16) -> Result<Aim> {
    let place = describe(namespace, service);
    let request = requests::<Service>(namespace).get(service, &GetParams::default()).map_err(unbuilt)?;
    let found: Service = read(namespace, "get", ("services", service), request).await?.ok_or_else(|| {
        Error::not_found("service_not_found", format!("there is no {place}"))
            .with_hint("is the server deployed, and are context and namespace right?")
    })?;
    Aim::of(&found, port).map_err(|reason| {
        Error::conflict("service_unfit", format!("{place} leads to no port of a pod: {reason}"))
            .with_hint("another way to the server can be named in shareddb.toml: hostaddr = \"HOST:PORT\"")
    })
}

fn requests<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(namespace: &Namespace) -> Request {
    Request::new(K::url_path(&(), Some(namespace.name().as_str())))
}

/// One object; `None` when there is none.
async fn read<T: DeserializeOwned>(
    namespace: &Namespace,
    verb: &'static str,
    object: (&'static str, &str),
    request: http::Request<Vec<u8>>,
) -> Result<Option<T>> {
    let text = call(namespace, verb, object, namespace.send(request)).await?;
    // Parsed here, since the client would log what it cannot parse.
    text.map(|text| serde_json::from_str(&text).map_err(|_| unreadable())).transpose()
}

async fn call<T>(
    namespace: &Namespace,
    verb: &'static str,
    object: (&'static str, &str),
    request: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>> {
    match namespace.call(verb, object, &Task::Tunnel.role(namespace.name().as_str()), request).await? {
        Answer::Done(done) => Ok(Some(done)),
        Answer::Absent => Ok(None),
        Answer::Exists | Answer::Moved => Err(unreadable()),
    }
}

fn describe(namespace: &Namespace, service: &str) -> String {
    format!("service/{service} in namespace {} (context {})", namespace.name(), namespace.context())
}

fn unreadable() -> Error {
    Error::failed("api_answer_unreadable", "the answer of the Kubernetes API cannot be read")
}

fn unbuilt(source: kube::core::request::Error) -> Error {
    Error::failed("internal", "the request to the Kubernetes API cannot be made").with_source(source)
}
