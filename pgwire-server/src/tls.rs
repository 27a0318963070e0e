//! TLS for the Postgres port: rustls with aws-lc-rs, TLS 1.3 unless 1.2 is asked for, ALPN `postgresql`.
//!
//! Made once at start by `cli`; `session::startup` runs the handshakes. A certificate or key that does not load
//! is an error for the caller, who must not listen then: nothing here falls back to plaintext.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use sepal_database::scram;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

/// The protocol name registered for Postgres; required when TLS starts without an SSLRequest, so that a
/// handshake meant for another protocol cannot be replayed here (ALPACA).
const ALPN: &[u8] = b"postgresql";

/// A certificate, its key and the protocol versions offered.
pub struct TlsConfig {
    config: Arc<ServerConfig>,
    end_point: Option<Vec<u8>>,
}

/// Why TLS cannot be offered.
#[derive(Debug)]
pub enum TlsError {
    Read {
        path: String,
        error: io::Error,
    },
    /// Others may read the key, or write it.
    KeyMode {
        path: String,
        mode: u32,
        root: bool,
    },
    KeyOwner {
        path: String,
        owner: u32,
        user: u32,
    },
    NoCertificate(String),
    NoKey(String),
    Rejected(rustls::Error),
}

impl TlsConfig {
    /// Reads a PEM chain (the server's certificate first) and a PEM key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// Refuses a key that others could read, by Postgres' rules.
    pub fn from_files(certificate: &Path, key: &Path, allow_tls12: bool) -> Result<Self, TlsError> {
        let chain = std::fs::read(certificate).map_err(|error| unreadable(certificate, error))?;
        Self::from_pem(&chain, &read_key(key)?, allow_tls12)
    }

    /// As [`TlsConfig::from_files`], from the files' bytes. The key must belong to the first certificate.
    pub fn from_pem(certificates: &[u8], key: &[u8], allow_tls12: bool) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::NoCertificate(format!("{error:?}")))?;
        let Some(certificate) = chain.first() else {
            return Err(TlsError::NoCertificate("the file holds no CERTIFICATE section".into()));
        };
        let end_point = end_point(certificate)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::NoKey(format!("{error:?}")))?;
        let versions: &[_] = if allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TlsError::Rejected)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Rejected)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), end_point })
    }

    /// The `tls-server-end-point` hash for SCRAM-SHA-256-PLUS; `None` where the certificate's signature has no
    /// hash function of its own (Ed25519), and PLUS is then not offered.
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Runs the server's side of the handshake. `direct`: the client began with it, without an SSLRequest.
    pub async fn accept(&self, socket: TcpStream, direct: bool) -> io::Result<TlsStream<TcpStream>> {
        let stream = TlsAcceptor::from(self.config.clone()).accept(socket).await?;
        if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "direct TLS connection without ALPN protocol \"postgresql\"",
            ));
        }
        Ok(stream)
    }
}

fn unreadable(path: &Path, error: io::Error) -> TlsError {
    TlsError::Read { path: path.display().to_string(), error }
}

/// The key's file, once nobody else may read it. The open file is judged, not the path: nobody can exchange it in
/// between.
fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
    check_key(path, metadata.uid(), metadata.mode() & 0o7777, effective_user())?;
    // With room for all of it: a vector that grew would leave a copy behind.
    let length = usize::try_from(metadata.len()).unwrap_or(0);
    let mut pem = Zeroizing::new(Vec::<u8>::with_capacity(length + 1));
    file.read_to_end(&mut pem).map_err(|error| unreadable(path, error))?;
    Ok(pem)
}

/// A key of our own user: for nobody else. One of root's: a group may read it, which is how distributions give one
/// certificate to several services.
fn check_key(path: &Path, owner: u32, mode: u32, user: u32) -> Result<(), TlsError> {
    let path = path.display().to_string();
    let root = owner == 0;
    if !root && owner != user {
        return Err(TlsError::KeyOwner { path, owner, user });
    }
    let forbidden = if root { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(TlsError::KeyMode { path, mode, root });
    }
    Ok(())
}

fn effective_user() -> u32 {
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (POSIX).
    unsafe { libc::geteuid() }
}

fn end_point(certificate: &CertificateDer<'_>) -> Result<Option<Vec<u8>>, TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| TlsError::NoCertificate(format!("it is not an X.509 certificate: {error}")))?;
    let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
    Ok(scram::tls_server_end_point(certificate, &algorithm))
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("channel_binding", &self.end_point.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, error } => write!(f, "cannot read {path}: {error}"),
            Self::KeyMode { path, mode, root } => write!(
                f,
                "the private key {path} may be used by others (mode {mode:04o}): chmod {} {path}",
                if *root { "0640" } else { "0600" }
            ),
            Self::KeyOwner { path, owner, user } => write!(
                f,
                "the private key {path} belongs to user {owner}, but the server runs as user {user}: chown {user} \
                 {path}"
            ),
            Self::NoCertificate(why) => write!(f, "the certificate does not load: {why}"),
            Self::NoKey(why) => write!(f, "the private key does not load: {why}"),
            Self::Rejected(error) => write!(f, "certificate and key cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("server.crt"), directory.path().join("server.key"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            TlsConfig::from_files(&certificate, &key, false)
        };
        assert!(with_mode(0o600).is_ok());
        assert!(with_mode(0o400).is_ok());
        let refused = with_mode(0o644).unwrap_err().to_string();
        assert!(refused.contains("mode 0644") && refused.contains("chmod 06"), "{refused}");
    }

    #[test]
    fn only_roots_keys_may_have_a_group() {
        let allowed = |owner, mode, user| check_key(Path::new("k"), owner, mode, user).is_ok();
        assert!(allowed(0, 0o640, 1000) && allowed(0, 0o640, 0));
        assert!(!allowed(0, 0o660, 1000) && !allowed(0, 0o644, 1000));
        assert!(allowed(1000, 0o600, 1000));
        assert!(!allowed(1000, 0o640, 1000));
        assert!(!allowed(1001, 0o600, 1000));
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let config = TlsConfig::from_pem(pem.as_bytes(), key.as_bytes(), false).unwrap();
        assert_eq!(config.end_point().map(<[u8]>::len), Some(32), "ECDSA with SHA-256");
        assert!(TlsConfig::from_pem(pem.as_bytes(), other.serialize_pem().as_bytes(), false).is_err());
        assert!(TlsConfig::from_pem(b"", key.as_bytes(), false).is_err());
        assert!(TlsConfig::from_pem(pem.as_bytes(), pem.as_bytes(), false).is_err());
    }
}
