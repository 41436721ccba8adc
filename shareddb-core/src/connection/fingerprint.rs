//! A few digits by which two processes can tell whether they have the same password.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use secrecy::{ExposeSecret as _, SecretString};

/// A tenth of a second, once for each explanation.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(200_000).unwrap();

/// Eight hex digits. So many rounds, and so few digits, that nobody finds a password by them: about one in four billion others
/// has the same.
pub(super) fn fingerprint(password: &SecretString, identity: &str) -> String {
    let salt = format!("shareddb fingerprint\0{identity}");
    let mut key = [0; 4];
    let text = password.expose_secret().as_bytes();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt.as_bytes(), text, &mut key);
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
