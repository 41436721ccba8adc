//! Passwords: made here, and turned into the only form the server ever receives.
//!
//! A verifier is what PostgreSQL stores for SCRAM-SHA-256 (RFC 5802, RFC 7677):
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. Computing it on our side keeps the clear
//! text out of SQL, and recomputing it with a stored salt tells whether a password is still the right one
//! without logging in.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use rand::TryRng as _;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{Error, Result};

/// Length of a generated password: 32 of 62 characters hold 190 bits, and none needs escaping anywhere.
pub(crate) const PASSWORD_LENGTH: usize = 32;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const SCHEME: &str = "SCRAM-SHA-256";
/// PostgreSQL's own default. More rounds add nothing at 190 bits and cost time at each login.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SALT_LENGTH: usize = 16;
const KEY_LENGTH: usize = digest::SHA256_OUTPUT_LEN;

/// Makes a new password from the operating system's random source.
///
/// # Errors
/// `Failed` when that source fails, which a working system does not do.
pub(crate) fn generate() -> Result<SecretString> {
    // Bytes past the last whole multiple of 62 would favour the first letters of the alphabet.
    let fair = u8::MAX - u8::MAX % ALPHABET.len() as u8;
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    while password.len() < PASSWORD_LENGTH {
        for byte in random::<PASSWORD_LENGTH>()?.into_iter().filter(|byte| *byte < fair) {
            if password.len() < PASSWORD_LENGTH {
                password.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(SecretString::from(password))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|source| Error::failed("no_randomness", "the system's random source failed").with_source(source))?;
    Ok(bytes)
}

/// The stored form of a password. Having one is proof that its text is well formed: the server would take
/// anything else for a clear text password, and log it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Verifier(String);

impl Verifier {
    /// Computes a verifier with a fresh salt.
    ///
    /// # Errors
    /// `Failed` when the system's random source fails.
    pub(crate) fn of(password: &SecretString) -> Result<Self> {
        let salt = random::<SALT_LENGTH>()?;
        Ok(Self(Scram::derive(password.expose_secret(), &salt, ITERATIONS).to_string()))
    }

    /// One that the server has stored, byte for byte; `None` for text in another form.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        (Scram::parse(text).is_some() || is_md5(text)).then(|| Self(text.to_owned()))
    }

    /// The text to store.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// Whether `stored`, as `pg_authid.rolpassword` has it, was made from `password`. Text in another form
/// (MD5, damaged) does not match; that is not an error.
pub(crate) fn matches(stored: &str, password: &SecretString) -> bool {
    Scram::parse(stored).is_some_and(|stored| {
        let derived = Scram::derive(password.expose_secret(), &stored.salt, stored.iterations);
        constant_time::verify_slices_are_equal(&derived.stored_key, &stored.stored_key).is_ok()
            && constant_time::verify_slices_are_equal(&derived.server_key, &stored.server_key).is_ok()
    })
}

/// As [`matches`], for the password of `role` in either form that a server may have stored.
pub(crate) fn accepts(stored: &str, role: &str, password: &SecretString) -> bool {
    if !is_md5(stored) {
        return matches(stored, password);
    }
    let mut hash = Md5::new();
    hash.update(password.expose_secret().as_bytes());
    hash.update(role.as_bytes());
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    constant_time::verify_slices_are_equal(hash.as_bytes(), &stored.as_bytes()[MD5.len()..]).is_ok()
}

const MD5: &str = "md5";

fn is_md5(stored: &str) -> bool {
    stored.strip_prefix(MD5).is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

struct Scram {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Scram {
    fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        // As libpq and the server do: a password that SASLprep rejects is used as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = [0; KEY_LENGTH];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared.as_bytes(), &mut salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: digest::digest(&digest::SHA256, client_key.as_ref()).as_ref().to_vec(),
            server_key: hmac::sign(&key, b"Server Key").as_ref().to_vec(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (scheme, cost, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let (iterations, salt) = cost.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let scram = Self {
            iterations: iterations.parse().ok()?,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: STANDARD.decode(stored_key).ok()?,
            server_key: STANDARD.decode(server_key).ok()?,
        };
        let whole = scheme == SCHEME
            && parts.next().is_none()
            && scram.stored_key.len() == KEY_LENGTH
            && scram.server_key.len() == KEY_LENGTH;
        whole.then_some(scram)
    }
}

impl fmt::Display for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(&self.stored_key),
            STANDARD.encode(&self.server_key)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn generated_passwords_are_long_plain_and_different() {
        let passwords: BTreeSet<String> = (0..200).map(|_| generate().unwrap().expose_secret().to_owned()).collect();
        assert_eq!(passwords.len(), 200);
        for password in &passwords {
            assert_eq!(password.len(), PASSWORD_LENGTH);
            assert!(password.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
        let letters: BTreeSet<char> = passwords.iter().flat_map(|password| password.chars()).collect();
        assert_eq!(letters.len(), ALPHABET.len(), "every letter of the alphabet occurs");
    }

    #[test]
    fn a_verifier_matches_its_password_only() {
        let password = SecretString::from("correct horse");
        let verifier = Verifier::of(&password).unwrap();
        assert!(matches(verifier.as_str(), &password));
        assert!(!matches(verifier.as_str(), &SecretString::from("correct horsf")));
        assert_ne!(verifier, Verifier::of(&password).unwrap(), "each has its own salt");
        assert!(!format!("{verifier:?}").contains("SCRAM"));
    }

    #[test]
    fn agrees_with_the_client_library() {
        for text in ["plain", "I\u{00ad}X", "\u{00aa}", "\u{0007}", "пароль"] {
            let stored = postgres_protocol::password::scram_sha_256(text.as_bytes());
            assert!(matches(&stored, &SecretString::from(text)), "{text:?}");
        }
    }

    #[test]
    fn what_a_server_has_stored_is_carried_and_nothing_else() {
        let password = SecretString::from("x");
        let scram = Verifier::of(&password).unwrap();
        // md5('x' || 'u')
        let md5 = "md5ce7a3bc51b3a5a2c3c5e9a7ee1f9b3c0";
        assert_eq!(Verifier::stored(scram.as_str()), Some(scram));
        assert!(Verifier::stored(md5).is_some());
        assert!(Verifier::stored("x").is_none() && Verifier::stored("md5x").is_none());
    }

    #[test]
    fn md5_is_of_the_password_and_the_role() {
        let password = SecretString::from("secret");
        let stored = "md5f8d2e4ff9c1f5a3a5c8d6f0b8c1c6d1a";
        assert!(!accepts(stored, "me", &password));
        let mut hash = Md5::new();
        hash.update(b"secretme");
        let stored: String =
            ["md5".to_owned()].into_iter().chain(hash.finalize().iter().map(|byte| format!("{byte:02x}"))).collect();
        assert!(accepts(&stored, "me", &password));
        assert!(!accepts(&stored, "you", &password) && !matches(&stored, &password));
    }

    #[test]
    fn other_forms_do_not_match() {
        let password = SecretString::from("x");
        let good = Verifier::of(&password).unwrap().as_str().to_owned();
        for stored in
            ["", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$0:YQ==$YQ==:YQ==", "x", &good[..good.len() - 4]]
        {
            assert!(!matches(stored, &password), "{stored}");
        }
        assert!(!matches(&good.replace("256$4096", "256$4095"), &password));
        assert!(!matches(&format!("{good}$"), &password));
    }
}
