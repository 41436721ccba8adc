//! How a server is reached from here: by an address that the file names, by its name, or through a tunnel.

use std::net::{IpAddr, SocketAddr};

#[cfg(feature = "kubernetes")]
use {
    super::remote::SERVICE,
    crate::connection::ConnectionConfig,
    crate::error::{Result, shell_word},
    crate::kubernetes::{IN_CLUSTER, Namespace, TUNNEL_PATIENCE, Tunnel, on_own_thread},
    crate::names::EnvironmentName,
    std::net::ToSocketAddrs as _,
    std::time::Duration,
};

/// How long the name of a Service is looked up. Outside the cluster nobody knows it.
#[cfg(feature = "kubernetes")]
const LOOKUP: Duration = Duration::from_secs(2);
/// What a login takes once a pod is there.
#[cfg(feature = "kubernetes")]
const LOGIN: Duration = Duration::from_secs(5);

/// An address that stands in for looking up the host, and perhaps a port that leads there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

impl Route {
    /// `10.0.0.7`, `127.0.0.1:15432`, `::1` or `[::1]:15432`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let whole = text.parse().map(|address: SocketAddr| Self { address: address.ip(), port: Some(address.port()) });
        whole.or_else(|_| text.parse().map(|address| Self { address, port: None })).ok()
    }
}

/// Whether a name means something on this machine.
#[cfg(feature = "kubernetes")]
pub(super) async fn resolves(host: &str) -> bool {
    let host = host.to_owned();
    let looked_up = on_own_thread(LOOKUP, move || {
        (host.as_str(), 0).to_socket_addrs().is_ok_and(|mut found| found.next().is_some())
    });
    looked_up.await.unwrap_or(false)
}

/// A tunnel to the namespace's Service.
#[cfg(feature = "kubernetes")]
pub(super) async fn tunnel(namespace: &Namespace, port: u16, environment: &EnvironmentName) -> Result<Tunnel> {
    Tunnel::open(namespace, SERVICE, port).await.map_err(|error| match error.code() {
        "service_not_found" => error.with_hint(format!(
            "`shareddb deploy{}` puts the server there; if it is there, are context and namespace right?",
            flags(environment, namespace)
        )),
        _ => error,
    })
}

/// What a command needs to act there, wherever it would by itself.
#[cfg(feature = "kubernetes")]
pub(super) fn flags(environment: &EnvironmentName, namespace: &Namespace) -> String {
    let context = match namespace.context() {
        IN_CLUSTER => String::new(),
        context => format!(" --context {}", shell_word(context)),
    };
    format!(" -e {environment} -n {}{context}", namespace.name())
}

/// The same login by way of a tunnel. The host stays what TLS checks.
#[cfg(feature = "kubernetes")]
pub(super) fn through(tunnel: &Tunnel, config: ConnectionConfig) -> ConnectionConfig {
    let address = tunnel.address();
    config.with_hostaddr(address.ip()).with_port(address.port()).with_connect_timeout(TUNNEL_PATIENCE + LOGIN)
}
