//! What an object store says, or the way to it, as one of our outcomes.

use std::error::Error as StdError;
use std::io;

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

use super::Error;

/// What a vendor's answer is cut to.
const SAID_MAX: usize = 200;

impl Error {
    /// Classifies an error of the object store; `what` says what was being done. Of what was answered only the code and the
    /// message are kept: the address of a request can hold a token.
    pub(crate) fn from_store(what: impl Into<String>, source: StoreError) -> Self {
        let what = what.into();
        let text = source.to_string();
        let message = match said(&text) {
            Some(said) => format!("{what}: {said}"),
            None => what,
        };
        // That of a disk; below a request it is the network's.
        if let (Some(error), None) = (find::<io::Error>(&source), find::<HttpError>(&source)) {
            let copy = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            return Self::from_io(message, copy);
        }
        if tag(&text, "Code").is_some_and(|code| ["NoSuchBucket", "ContainerNotFound"].contains(&code)) {
            return Self::not_found("bucket_not_found", message).with_hint("make the bucket first, or correct the URL");
        }
        match source {
            StoreError::NotFound { .. } => Self::not_found("object_not_found", message),
            StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
                Self::conflict("object_exists", message)
            }
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => denied(message),
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                Self::refused("store_cannot_create", message)
            }
            StoreError::InvalidPath { .. } => Self::invalid_input("store_path_invalid", message),
            StoreError::UnknownConfigurationKey { key, .. } => {
                Self::invalid_input("store_setting_invalid", format!("{message}: {key} is no setting of this store"))
            }
            source => Self::from_way(message, &text, &source),
        }
    }

    /// What is not an answer to the question.
    fn from_way(message: String, text: &str, source: &StoreError) -> Self {
        if text.contains("501 Not Implemented") {
            return Self::refused("store_cannot_create", message);
        }
        if let Some(error) = find::<HttpError>(source) {
            let hint = "is the store up, and is its address right (AWS_ENDPOINT_URL, AZURE_ENDPOINT)? run it again in a moment";
            let reason = way(error);
            return match error.kind() {
                HttpErrorKind::Timeout => Self::timeout("store_timeout", message).with_hint(hint),
                // The words of the client, which has no type for this.
                _ if reason.contains("scheme is not allowed") => plain_http(&message),
                _ => Self::unavailable("store_unreachable", format!("{message}: {reason}")).with_hint(hint),
            };
        }
        // Of a listing that is refused the library tells no more than this.
        if ["status code: 401", "status code: 403"].iter().any(|status| text.contains(status)) {
            return denied(message);
        }
        if is_setting(text) {
            return Self::invalid_input("store_setting_invalid", message).with_hint(
                "look at the variables AWS_…, GOOGLE_…, AZURE_… of the environment: one is missing or makes no sense",
            );
        }
        if text.contains("non-2xx status code: 4") {
            return Self::failed("store_refused", message);
        }
        Self::unavailable("store_unreachable", message)
            .with_hint("is the store well? where no credentials are set, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say who we are")
    }
}

fn denied(message: String) -> Error {
    Error::permission_denied("store_denied", message).with_hint(
        "are the credentials in the environment (AWS_…, GOOGLE_…, AZURE_…) those of this bucket, and may they list, read, \
         write and delete there?",
    )
}

fn plain_http(message: &str) -> Error {
    Error::invalid_input("store_not_encrypted", format!("{message}: its address is http, and not https"))
        .with_hint("where nobody listens in between, AWS_ALLOW_HTTP=true allows it")
}

/// Whether a store could not even be set up with what it was given.
fn is_setting(text: &str) -> bool {
    [
        "Configuration key",
        "Missing ",
        "Invalid ",
        "Unable to parse",
        "must be specified",
        "Failed to parse",
        "could not be read",
    ]
    .iter()
    .any(|word| text.contains(word))
        && !text.contains("Error performing")
}

/// The error of this type below; `io::Error` hides what it wraps from `source()`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |cause| (*cause).source()).find_map(|cause| cause.downcast_ref::<E>())
}

/// The innermost cause, in which no address stands.
fn way(error: &HttpError) -> String {
    let chain = std::iter::successors(error.source(), |cause| (*cause).source());
    let last = chain.last().map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    last.chars().take(SAID_MAX).collect()
}

/// What the store says in its own words: the code and the message of S3, Google and Azure alike.
fn said(text: &str) -> Option<String> {
    let code = tag(text, "Code").map(str::to_owned);
    let status = || {
        let (_, rest) = text.split_once("status code: ")?;
        Some(rest.split([':', '<', '{']).next()?.trim().to_owned())
    };
    let mut said = code.or_else(status)?;
    if let Some(message) = tag(text, "Message") {
        said = format!("{said}: {message}");
    }
    Some(said.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect())
}

fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn only_the_words_of_a_store_are_kept() {
        let answer = "Error performing PUT https://h/b/x?sig=s3cr3t in 3ms - Server returned non-2xx status code: 403 Forbidden: \
                      <Error><Code>AccessDenied</Code><Message>Access Denied</Message><StringToSign>x</StringToSign></Error>";
        let source = StoreError::PermissionDenied { path: "x".into(), source: answer.to_owned().into() };
        let error = Error::from_store("cannot write in s3://b/", source);
        assert_eq!(error.to_string(), "cannot write in s3://b/: AccessDenied: Access Denied");
        assert!(!format!("{error:?}").contains("s3cr3t"));
        let error = Error::from_store("cannot list", generic("… status code: 503 Service Unavailable: <html>"));
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("store_unreachable", "cannot list: 503 Service Unavailable")
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn the_disk_below_is_heard() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error =
            Error::from_store("cannot write", StoreError::Generic { store: "LocalFileSystem", source: full.into() });
        assert_eq!(error.code(), "disk_full");
    }

    #[test]
    fn a_missing_bucket_is_told_from_a_missing_object() {
        let gone = |text: &str| StoreError::NotFound { path: "p".into(), source: text.to_owned().into() };
        let code = |text: &str| Error::from_store("cannot read", gone(text)).code();
        assert_eq!(code("… <Code>NoSuchBucket</Code>"), "bucket_not_found");
        assert_eq!(code("… <Code>NoSuchKey</Code>"), "object_not_found");
    }
}
