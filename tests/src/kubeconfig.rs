//! The file that tells a client of Kubernetes where its server is and who it is.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{Config, KubeConfigOptions, Kubeconfig as Parsed};
use serde_json::{Value, json};

use crate::certificates::Identity;

/// How a client says who it is.
#[derive(Clone)]
pub enum Credential {
    /// By a certificate.
    Certificate(Identity),
    /// By a token.
    Token(String),
    /// Not at all.
    Anonymous,
}

/// One server, one user and one context, which is the current one.
pub struct Kubeconfig<'a> {
    /// The name of the context, its server and its user.
    pub context: &'a str,
    /// The server's URL.
    pub server: &'a str,
    /// The certificate, as PEM, of who vouches for the server; none for one without TLS.
    pub authority: Option<&'a str>,
    /// The namespace of the context.
    pub namespace: &'a str,
    /// Who the user is.
    pub credential: Credential,
}

impl Kubeconfig<'_> {
    /// Writes it to a new file that only its owner can read. JSON is YAML.
    pub fn write(&self, path: &Path) {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("the home is ours");
        file.write_all(self.content().to_string().as_bytes()).expect("a disk with room");
    }

    fn content(&self) -> Value {
        let mut cluster = json!({ "server": self.server });
        if let Some(authority) = self.authority {
            cluster["certificate-authority-data"] = STANDARD.encode(authority).into();
        }
        let user = match &self.credential {
            Credential::Certificate(identity) => json!({
                "client-certificate-data": STANDARD.encode(&identity.certificate),
                "client-key-data": STANDARD.encode(&identity.key),
            }),
            Credential::Token(token) => json!({ "token": token }),
            Credential::Anonymous => json!({}),
        };
        let context = self.context;
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": context, "cluster": cluster }],
            "users": [{ "name": context, "user": user }],
            "contexts": [{
                "name": context,
                "context": { "cluster": context, "user": context, "namespace": self.namespace },
            }],
            "current-context": context,
        })
    }
}

/// What a file says, as the client library takes it. A test that wants an answer as it came switches retries off.
pub async fn config(path: &Path) -> Config {
    let parsed = Parsed::read_from(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await;
    let mut config = config.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    config.default_retry = false;
    config
}
