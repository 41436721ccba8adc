//! Tokens of service accounts, which end when a test wants them to.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use serde_json::{Value, json};

/// Who an API server takes for the issuer of its tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// A service account.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its identity, which a later account of that name does not have.
    pub uid: &'a str,
}

/// The key that an API server signs tokens with. The API itself issues none that lives shorter than ten minutes.
pub struct TokenKey {
    key: KeyPair,
    signing: EcdsaKeyPair,
}

impl TokenKey {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let signing = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der());
        Self { key, signing: signing.expect("a key on P-256") }
    }

    /// The private part as PEM.
    pub fn private(&self) -> String {
        self.key.serialize_pem()
    }

    /// The public part as PEM.
    pub fn public(&self) -> String {
        self.key.public_key_pem()
    }

    /// A token that ends so many seconds from now; one of a negative number has ended.
    pub fn token(&self, account: &Account<'_>, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let now = i64::try_from(now).expect("before the sun goes out");
        // Issued long ago, so that one that has ended had begun.
        let claims = json!({
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
            "iat": now - 86_400,
            "nbf": now - 86_400,
            "exp": now + seconds,
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": { "name": account.name, "uid": account.uid },
            },
        });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "typ": "JWT" })), encode(&claims));
        let signature = self.signing.sign(&SystemRandom::new(), signed.as_bytes()).expect("it can sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Default for TokenKey {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}
