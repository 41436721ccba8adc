//! The certificate of a server with TLS, and the authority that vouches for it: made here, and kept in Secrets.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::DecodePem as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectAltName};

use crate::error::{Error, Result};

const DAY: u64 = 24 * 60 * 60;
/// Apps hold the authority's certificate in their Secrets, so that a new one costs a `create` of each.
const AUTHORITY_LIFE: u64 = 20 * 365 * DAY;
const SERVER_LIFE: u64 = 2 * 365 * DAY;
/// Two clocks can differ by this much.
const CLOCKS_APART: u64 = DAY;

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: SecretString,
}

/// The certificates of one server.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// The authority's certificate, which everybody may have.
    pub(crate) authority: String,
    /// The authority, when it is new; otherwise it is kept as it is.
    pub(crate) new_authority: Option<Pair>,
    pub(crate) certificate: String,
    key: SecretString,
}

impl Certificates {
    pub(crate) fn key(&self) -> &str {
        self.key.expose_secret()
    }

    /// What there is, as far as it is of use for a server of these names; what is missing or soon over is made anew. `now`
    /// is in seconds since 1970.
    ///
    /// An authority that is renewed keeps its key, so that who trusts the old certificate trusts what it issues now.
    ///
    /// # Errors
    /// `Failed` when the kept authority is damaged, and `Refused` when it is not the one that the server's certificate is from: what
    /// another one issues locks out every app that has the certificate of the first.
    pub(crate) fn settled(authority: Option<&Pair>, server: Option<&Pair>, names: &[String], now: u64) -> Result<Self> {
        let key = authority.map(|pair| KeyPair::from_pem(pair.key.expose_secret())).transpose().map_err(damaged)?;
        let key = key.map_or_else(KeyPair::generate, Ok).map_err(unmade)?;
        if authority.is_some_and(|pair| public_key(&pair.certificate).is_some_and(|of| of != key.der_bytes())) {
            return Err(another("its key and its certificate do not belong together"));
        }
        if authority.is_some() && server.and_then(|pair| issuer(&pair.certificate)).is_some_and(|of| of != key_id(&key))
        {
            return Err(another("the server's certificate, in secret/postgres-tls, is from another authority"));
        }
        let key_text = SecretString::from(key.serialize_pem());
        let kept = match authority {
            Some(pair) => {
                Some(pair).filter(|pair| end(&pair.certificate).is_some_and(|end| end > now + 2 * SERVER_LIFE))
            }
            None => None,
        };
        let mut params = named("shareddb authority", now, AUTHORITY_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let (certificate, new_authority) = match kept {
            Some(pair) => (pair.certificate.clone(), None),
            None => {
                let certificate = params.self_signed(&key).map_err(unmade)?.pem();
                (certificate.clone(), Some(Pair { certificate, key: key_text }))
            }
        };
        let fits =
            |pair: &&Pair| authority.is_some() && serves(&pair.certificate, names, now) && of(&pair.certificate, &key);
        let server = match server.filter(fits) {
            Some(pair) => pair.clone(),
            None => issued(&Issuer::new(params, key), names, now)?,
        };
        Ok(Self { authority: certificate, new_authority, certificate: server.certificate, key: server.key })
    }
}

/// When a certificate ends, in seconds since 1970.
pub(crate) fn end(certificate: &str) -> Option<u64> {
    let parsed = Certificate::from_pem(certificate).ok()?;
    Some(parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}

fn issued(issuer: &Issuer<'_, KeyPair>, names: &[String], now: u64) -> Result<Pair> {
    let key = KeyPair::generate().map_err(unmade)?;
    let mut params = named(&names[0], now, SERVER_LIFE)?;
    params.subject_alt_names = CertificateParams::new(names).map_err(unmade)?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer).map_err(unmade)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem().into() })
}

fn named(name: &str, now: u64, life: u64) -> Result<CertificateParams> {
    let at = |seconds: u64| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = at(now.saturating_sub(CLOCKS_APART)).map_err(unmade)?;
    params.not_after = at(now + life).map_err(unmade)?;
    Ok(params)
}

/// Whether a certificate is one for these names, and not soon over.
fn serves(certificate: &str, names: &[String], now: u64) -> bool {
    let Ok(parsed) = Certificate::from_pem(certificate) else { return false };
    let Ok(Some((_, SubjectAltName(found)))) = parsed.tbs_certificate.get::<SubjectAltName>() else { return false };
    let found: Vec<&str> = found
        .iter()
        .filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    found == names && end(certificate).is_some_and(|end| end > now + SERVER_LIFE / 2)
}

/// Whether an authority's key has issued a certificate, as far as the certificate says so itself.
fn of(certificate: &str, authority: &KeyPair) -> bool {
    issuer(certificate).is_some_and(|issuer| issuer == key_id(authority))
}

/// By which key a certificate was issued, where it says so.
fn issuer(certificate: &str) -> Option<Vec<u8>> {
    let (_, found) =
        Certificate::from_pem(certificate).ok()?.tbs_certificate.get::<AuthorityKeyIdentifier>().ok()??;
    Some(found.key_identifier?.as_bytes().to_vec())
}

fn key_id(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().key_identifier(key)
}

/// The key that a certificate is about.
fn public_key(certificate: &str) -> Option<Vec<u8>> {
    let parsed = Certificate::from_pem(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes().to_vec())
}

/// Whether who trusts the one certificate trusts what the authority of the other issues: they are about the same key.
pub(crate) fn vouch_alike(one: &str, other: &str) -> bool {
    one == other || public_key(one).is_some_and(|key| Some(key) == public_key(other))
}

fn another(why: &str) -> Error {
    let message = format!("secret/postgres-ca is not the authority that the apps know: {why}");
    Error::refused("authority_other", message).with_hint(
        "put back what was there. To go on with what is there now: kubectl delete secret postgres-tls, and run this again; to begin with a \
         new one: kubectl delete secret postgres-ca postgres-tls. Either way no app can log in until its next `shareddb create`",
    )
}

fn unmade(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("certificate_unmade", "the server's certificate cannot be made").with_source(source)
}

fn damaged(source: rcgen::Error) -> Error {
    Error::failed("authority_damaged", "the key of the authority that vouches for the server cannot be read").with_source(source).with_hint(
        "put Secret postgres-ca back as it was. Without it, a new one is made (kubectl delete secret postgres-ca postgres-tls, and \
         run this again), and every app needs a `shareddb create` before it can log in again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["postgres-service.stage.svc.cluster.local".to_owned(), "postgres-service".to_owned()]
    }

    fn pairs(made: &Certificates, authority: Option<&Pair>) -> (Pair, Pair) {
        let server = Pair { certificate: made.certificate.clone(), key: made.key.clone() };
        (made.new_authority.clone().or_else(|| authority.cloned()).unwrap(), server)
    }

    #[test]
    fn what_is_good_stays() {
        let first = Certificates::settled(None, None, &names(), NOW).unwrap();
        let (authority, server) = pairs(&first, None);
        let again = Certificates::settled(Some(&authority), Some(&server), &names(), NOW + 300 * DAY).unwrap();
        assert!(again.new_authority.is_none());
        assert_eq!((again.authority, again.certificate), (first.authority, first.certificate));
    }

    #[test]
    fn a_certificate_is_renewed_in_the_second_half_of_its_life_or_for_other_names() {
        let first = Certificates::settled(None, None, &names(), NOW).unwrap();
        let (authority, server) = pairs(&first, None);
        let later = Certificates::settled(Some(&authority), Some(&server), &names(), NOW + 400 * DAY).unwrap();
        assert_ne!(later.certificate, first.certificate);
        assert_eq!(later.authority, first.authority);
        assert!(end(&later.certificate) > end(&first.certificate));
        let other = Certificates::settled(Some(&authority), Some(&server), &names()[1..], NOW).unwrap();
        assert_ne!(other.certificate, first.certificate);
    }

    #[test]
    fn an_authority_is_renewed_under_its_key() {
        let first = Certificates::settled(None, None, &names(), NOW).unwrap();
        let (authority, server) = pairs(&first, None);
        let later = Certificates::settled(Some(&authority), Some(&server), &names(), NOW + 17 * 365 * DAY).unwrap();
        let renewed = later.new_authority.as_ref().unwrap();
        assert_ne!(renewed.certificate, authority.certificate);
        assert_eq!(renewed.key.expose_secret(), authority.key.expose_secret());
        assert!(of(&later.certificate, &KeyPair::from_pem(authority.key.expose_secret()).unwrap()));
    }

    #[test]
    fn an_authority_that_is_not_that_of_the_certificate_is_refused() {
        let one = Certificates::settled(None, None, &names(), NOW).unwrap();
        let other = Certificates::settled(None, None, &names(), NOW).unwrap();
        let ((authority, server), (stranger, _)) = (pairs(&one, None), pairs(&other, None));
        let error = Certificates::settled(Some(&stranger), Some(&server), &names(), NOW).unwrap_err();
        assert_eq!(error.code(), "authority_other");
        assert!(error.hint().unwrap().contains("kubectl delete secret postgres-tls"), "{error:?}");
        let mixed = Pair { certificate: stranger.certificate.clone(), ..authority.clone() };
        let error = Certificates::settled(Some(&mixed), Some(&server), &names(), NOW).unwrap_err();
        assert_eq!(error.code(), "authority_other");
        // With its certificate gone, it is what somebody wants.
        let wanted = Certificates::settled(Some(&stranger), None, &names(), NOW).unwrap();
        assert!(!vouch_alike(&wanted.authority, &authority.certificate));
        let renewed = Certificates::settled(Some(&authority), Some(&server), &names(), NOW + 17 * 365 * DAY).unwrap();
        assert!(vouch_alike(&renewed.authority, &authority.certificate));
        assert!(renewed.new_authority.is_some());
    }

    #[test]
    fn a_broken_certificate_is_made_anew_and_a_broken_authority_is_not() {
        let first = Certificates::settled(None, None, &names(), NOW).unwrap();
        let (authority, server) = pairs(&first, None);
        let broken = Pair { certificate: "no certificate".to_owned(), ..server };
        let mended = Certificates::settled(Some(&authority), Some(&broken), &names(), NOW).unwrap();
        assert!(of(&mended.certificate, &KeyPair::from_pem(authority.key.expose_secret()).unwrap()));
        let broken = Pair { key: "no key".to_owned().into(), ..authority };
        let error = Certificates::settled(Some(&broken), None, &names(), NOW).unwrap_err();
        assert_eq!(error.code(), "authority_damaged");
        let hint = error.hint().unwrap();
        assert!(hint.contains("kubectl delete secret postgres-ca postgres-tls"), "in one go: {hint}");
    }
}
