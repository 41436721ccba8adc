//! Whom a dump is encrypted for, and what opens it.

use std::fmt;

use age::secrecy::SecretString;
use age::{scrypt, x25519};

use super::manifest::{Encryption, Manifest};
use crate::error::{Error, Result};

/// A passphrase that takes a fast machine a second takes a slow one longer; beyond 2^22 it is an attack.
const WORK_FACTOR_MAX: u8 = 22;

/// Whom a backup is encrypted for. None: it is not encrypted.
#[derive(Clone, Default)]
pub struct Recipients(For);

#[derive(Clone, Default)]
enum For {
    #[default]
    Everybody,
    Keys(Vec<x25519::Recipient>),
    Passphrase(SecretString),
}

impl Recipients {
    /// Nothing is encrypted.
    pub fn none() -> Self {
        Self::default()
    }

    /// The holders of the private keys to these public ones, `age1…`. No keys: nothing is encrypted.
    ///
    /// # Errors
    /// `InvalidInput` for what is no public key of age's. A private key given by mistake is not repeated.
    pub fn keys<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let keys = texts.into_iter().map(|text| text.trim().parse().map_err(|_| no_recipient(text)));
        let keys: Vec<x25519::Recipient> = keys.collect::<Result<_>>()?;
        Ok(Self(if keys.is_empty() { For::Everybody } else { For::Keys(keys) }))
    }

    /// Whoever knows this passphrase.
    ///
    /// # Errors
    /// `InvalidInput` when it is empty.
    pub fn passphrase(passphrase: impl Into<String>) -> Result<Self> {
        let passphrase: String = passphrase.into();
        if passphrase.is_empty() {
            return Err(Error::invalid_input("passphrase_empty", "an empty passphrase keeps nobody out"));
        }
        Ok(Self(For::Passphrase(SecretString::from(passphrase))))
    }

    /// These, or where there are none, those whom this backup is encrypted for.
    pub(crate) fn or_those_of(self, manifest: &Manifest) -> Result<Self> {
        match (self.encryption(), &manifest.data.encryption) {
            (None, Some(Encryption::Age(keys))) => Self::keys(keys.iter().map(String::as_str)),
            _ => Ok(self),
        }
    }

    pub(crate) fn encryption(&self) -> Option<Encryption> {
        match &self.0 {
            For::Everybody => None,
            For::Keys(keys) => Some(Encryption::Age(keys.iter().map(ToString::to_string).collect())),
            For::Passphrase(_) => Some(Encryption::AgePassphrase),
        }
    }

    /// What encrypts, if anything does.
    pub(crate) fn encryptor(&self) -> Result<Option<age::Encryptor>> {
        let encryptor = match &self.0 {
            For::Everybody => return Ok(None),
            For::Keys(keys) => age::Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
                .map_err(|error| {
                    Error::failed("encryption_failed", "cannot encrypt for these keys").with_source(error)
                })?,
            For::Passphrase(passphrase) => age::Encryptor::with_user_passphrase(passphrase.clone()),
        };
        Ok(Some(encryptor))
    }
}

/// Never more than whom it is for: a passphrase is a secret.
impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({:?})", self.encryption())
    }
}

fn no_recipient(text: &str) -> Error {
    let secret = text.trim().to_ascii_uppercase().starts_with("AGE-SECRET-KEY");
    let message =
        if secret { "that is a private key".to_owned() } else { format!("{text:?} is no public key of age's") };
    Error::invalid_input("recipient_invalid", message)
        .with_hint("a public key begins with age1; `age-keygen -y FILE` prints the one that belongs to a private key")
}

/// What opens encrypted backups: private keys of age's, or a passphrase.
#[derive(Clone, Default)]
pub struct Identities {
    keys: Vec<x25519::Identity>,
    passphrase: Option<SecretString>,
}

impl Identities {
    /// Nothing: opens what is not encrypted.
    pub fn none() -> Self {
        Self::default()
    }

    /// The private keys in the text of a key file, as `age-keygen` writes it: one a line, beside remarks after `#`.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is no private key; it is not repeated.
    pub fn keys(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
            line.parse().map_err(|_| {
                Error::invalid_input("identity_invalid", format!("line {} is no private key of age's", at + 1))
                    .with_hint("a private key begins with AGE-SECRET-KEY-1; `age-keygen -o FILE` makes one")
            })
        });
        Ok(Self { keys: keys.collect::<Result<_>>()?, passphrase: None })
    }

    /// The passphrase it was encrypted with.
    pub fn passphrase(passphrase: impl Into<String>) -> Self {
        let passphrase: String = passphrase.into();
        Self { keys: Vec::new(), passphrase: Some(SecretString::from(passphrase)) }
    }

    /// Whether there is something to open it with at all.
    ///
    /// # Errors
    /// `InvalidInput` (`backup_key_missing`) when there is not, naming what is needed.
    pub(crate) fn may_open(&self, encryption: Option<&Encryption>) -> Result<()> {
        let needed = match encryption {
            Some(Encryption::Age(recipients)) if self.keys.is_empty() => {
                format!("the private key to one of {}", recipients.join(", "))
            }
            Some(Encryption::AgePassphrase) if self.passphrase.is_none() => "its passphrase".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::invalid_input(
            "backup_key_missing",
            format!("the backup is encrypted, and opens with {needed} only"),
        )
        .with_hint("say where the key is; without it the backup is lost"))
    }

    /// Whether one of the keys should open it, by what the manifest says.
    pub(crate) fn should_open(&self, encryption: &Encryption) -> bool {
        match encryption {
            Encryption::Age(recipients) => {
                self.keys.iter().any(|key| recipients.contains(&key.to_public().to_string()))
            }
            Encryption::AgePassphrase => false,
        }
    }

    /// Everything that may open it, to be tried in turn.
    pub(crate) fn all(&self) -> Vec<Box<dyn age::Identity>> {
        let keys = self.keys.iter().map(|key| Box::new(key.clone()) as Box<dyn age::Identity>);
        let passphrase = self.passphrase.iter().map(|passphrase| {
            let mut identity = scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(WORK_FACTOR_MAX);
            Box::new(identity) as Box<dyn age::Identity>
        });
        keys.chain(passphrase).collect()
    }
}

/// Never the keys.
impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passphrase = if self.passphrase.is_some() { " and a passphrase" } else { "" };
        write!(f, "Identities({} keys{passphrase})", self.keys.len())
    }
}
