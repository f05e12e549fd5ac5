//! An authority that one job trusts, and that trusts nobody but that job.
//!
//! Its private key is forgotten as soon as it has signed the two certificates that there are: one for this agent, one for the job.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};

use super::keys::{Key, KeyError, pem};

/// Names under which a job finds the engine.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "remote-docker"];
/// A job's clock may be behind ours, and certificates are good from a whole day on.
const BEFORE: SignedDuration = SignedDuration::from_hours(48);
/// Beyond the job's time. What holds it back is that nobody listens any more.
const AFTER: SignedDuration = SignedDuration::from_hours(48);
/// No job is given more.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 365);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("failed to make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("failed to set up TLS: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What one job has of its authority. Its `Debug` tells no key.
pub struct Issued {
    /// For the agent, which takes no caller without a certificate of this authority.
    pub server: Arc<ServerConfig>,
    /// `ca.pem`.
    pub authority: String,
    /// `cert.pem`.
    pub certificate: String,
    /// `key.pem`.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Makes an authority for one job, which may last for `job` from now on.
///
/// # Errors
/// The system has no random numbers, or the libraries refuse what they are given.
pub fn issue(job: Duration) -> Result<Issued, AuthorityError> {
    let ca_key = Key::new()?;
    let mut ca = parameters("Navvy: one job's authority", &ca_key, job)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let (server_key, client_key) = (Key::new()?, Key::new()?);
    let server = signed("Navvy: remote Docker", &server_key, ExtendedKeyUsagePurpose::ServerAuth, &issuer, job)?;
    let client = signed("Navvy: a job", &client_key, ExtendedKeyUsagePurpose::ClientAuth, &issuer, job)?;
    Ok(Issued {
        server: Arc::new(server_config(&ca_certificate, &server, &server_key)?),
        authority: pem("CERTIFICATE", ca_certificate.der()),
        certificate: pem("CERTIFICATE", client.der()),
        key: client_key.pem(),
    })
}

fn signed(
    name: &str,
    key: &Key,
    usage: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, Key>,
    job: Duration,
) -> Result<Certificate, AuthorityError> {
    let mut parameters = parameters(name, key, job)?;
    if usage == ExtendedKeyUsagePurpose::ServerAuth {
        parameters.subject_alt_names = CertificateParams::new(NAMES.map(str::to_owned))?.subject_alt_names;
    }
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters.signed_by(key, issuer)?)
}

fn parameters(name: &str, key: &Key, job: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    // A day's beginning, in UTC.
    let day = |from_now: SignedDuration| {
        let at = Timestamp::now().checked_add(from_now).unwrap_or_else(|_| Timestamp::now());
        let date = at.to_zoned(TimeZone::UTC).date();
        date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let job = SignedDuration::try_from(job).unwrap_or(LONGEST).min(LONGEST);
    (parameters.not_before, parameters.not_after) = (day(-BEFORE), day(job + AFTER));
    let (mut serial, random) = ([0; 16], SystemRandom::new());
    random.fill(&mut serial).map_err(|_| KeyError)?;
    // A positive number: the first bit is its sign.
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    let digest = ring::digest::digest(&ring::digest::SHA256, rcgen::PublicKeyData::der_bytes(key));
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(digest.as_ref()[..20].to_vec());
    Ok(parameters)
}

fn server_config(ca: &Certificate, certificate: &Certificate, key: &Key) -> Result<ServerConfig, AuthorityError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.der().to_vec()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.der().to_vec()));
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_client_cert_verifier(verifier).with_single_cert(chain, key)?)
}
