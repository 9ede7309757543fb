//! What the configuration claims of the world: files that are there, certificates that hold, ports that are free,
//! room for the sessions.
//!
//! Looks and never changes anything; a port is bound and let go at once.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    holder::{self, Holder},
    node::Place,
    shape::Findings,
};
use crate::net::{Certificates, descriptors};

/// How long before a certificate's end it is spoken of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// Something that must hold outside of the text.
#[derive(Clone, Debug)]
pub(super) enum Claim {
    /// A certificate and its key.
    Pair { cert: (PathBuf, Place), key: (PathBuf, Place) },
    /// The authorities of an upstream.
    Authorities(PathBuf, Place),
    /// A rule file or a folder of them.
    Rules(PathBuf, Place),
    /// The folder of the store.
    Store(PathBuf, Place),
    /// An address to listen on.
    Port(SocketAddr, Place),
    /// The sessions there may be.
    Sessions(u64, Place),
}

/// Checks a claim about the disk; others are left alone.
pub(super) fn check_file(claim: &Claim, now: SystemTime, found: &mut Findings) {
    match claim {
        Claim::Pair { cert, key } => check_pair(cert, key, now, found),
        Claim::Authorities(path, at) => {
            if let Some(chain) = certificates(path, *at, found)
                && chain.is_empty()
            {
                no_certificate(path, *at, found);
            }
        }
        Claim::Rules(path, at) => {
            let readable =
                if path.is_dir() { fs::read_dir(path).map(drop) } else { fs::File::open(path).map(drop) };
            if let Err(error) = readable {
                unreadable(path, *at, &error, found);
            }
        }
        Claim::Store(path, at) => check_store(path, *at, found),
        Claim::Port(..) | Claim::Sessions(..) => {}
    }
}

fn check_pair(cert: &(PathBuf, Place), key: &(PathBuf, Place), now: SystemTime, found: &mut Findings) {
    let chain = certificates(&cert.0, cert.1, found);
    let key_is_sound = check_key(&key.0, key.1, found);
    let Some(chain) = chain else { return };
    let Some(leaf) = chain.first() else { return no_certificate(&cert.0, cert.1, found) };
    check_validity(leaf, &cert.0, cert.1, now, found);
    if key_is_sound && let Err(error) = Certificates::default().add(&cert.0, &key.0) {
        let problem = format!("`{}` is not the key of `{}`: {error}", key.0.display(), cert.0.display());
        found.fault(key.1, problem, "name the key that the certificate was made with");
    }
}

/// The certificates of a PEM file; none, and a fault, where it cannot be read.
fn certificates(path: &Path, at: Place, found: &mut Findings) -> Option<Vec<CertificateDer<'static>>> {
    let pem = read(path, at, found)?;
    match CertificateDer::pem_slice_iter(&pem).collect() {
        Ok(chain) => Some(chain),
        Err(error) => {
            let remedy = "write it as PEM: -----BEGIN CERTIFICATE-----, base64, -----END CERTIFICATE-----";
            found.fault(at, format!("`{}` is not PEM: {error}", path.display()), remedy);
            None
        }
    }
}

fn no_certificate(path: &Path, at: Place, found: &mut Findings) {
    let remedy = "it must have a -----BEGIN CERTIFICATE----- section; is this the key?";
    found.fault(at, format!("`{}` has no certificate in it", path.display()), remedy);
}

fn check_key(path: &Path, at: Place, found: &mut Findings) -> bool {
    let Some(pem) = read(path, at, found) else { return false };
    let sound = PrivateKeyDer::from_pem_slice(&pem);
    if sound.is_err() {
        let remedy = "it must have a -----BEGIN PRIVATE KEY----- section without a passphrase; is this the certificate?";
        found.fault(at, format!("`{}` has no private key in it", path.display()), remedy);
    }
    sound.is_ok()
}

fn check_validity(leaf: &CertificateDer<'_>, path: &Path, at: Place, now: SystemTime, found: &mut Findings) {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return };
    let now =
        now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let (begin, end) = (parsed.validity().not_before, parsed.validity().not_after);
    let path = path.display();
    if end.timestamp() < now {
        found.fault(at, format!("`{path}` expired on {end}"), "renew the certificate");
    } else if begin.timestamp() > now {
        let remedy = "look at this machine's clock, or wait";
        found.fault(at, format!("`{path}` is valid from {begin} only"), remedy);
    } else if end.timestamp() < now.saturating_add_unsigned(EXPIRY_WARNING.as_secs()) {
        found.warn(at, format!("`{path}` expires on {end}"), "renew the certificate");
    }
}

/// The store's folder must be writable, or the nearest folder above it that exists, so that it can be made.
fn check_store(path: &Path, at: Place, found: &mut Findings) {
    let existing =
        path.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let Some(folder) = existing.into_iter().find(|folder| folder.exists()) else { return };
    let outcome = if folder.is_dir() {
        tempfile::tempfile_in(folder).map(drop)
    } else {
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    };
    if let Err(error) = outcome {
        let problem = match folder == path {
            true => format!("the store's folder `{}` is not writable: {error}", path.display()),
            false => format!(
                "the store's folder `{}` cannot be made in `{}`: {error}",
                path.display(),
                folder.display()
            ),
        };
        found.fault(
            at,
            problem,
            "give it to the user Gatepost runs as, or name another under `store: { path: … }`",
        );
    }
}

fn read(path: &Path, at: Place, found: &mut Findings) -> Option<Vec<u8>> {
    fs::read(path).map_err(|error| unreadable(path, at, &error, found)).ok()
}

fn unreadable(path: &Path, at: Place, error: &io::Error, found: &mut Findings) {
    let (problem, remedy) = match error.kind() {
        io::ErrorKind::NotFound => (
            "does not exist".to_owned(),
            "put it there; a relative path starts at the configuration's folder",
        ),
        _ => (format!("cannot be read: {error}"), "make it readable for the user Gatepost runs as"),
    };
    found.fault(at, format!("`{}` {problem}", path.display()), remedy);
}

/// Checks a claim about sessions against the `hard` limit of open files; others are left alone.
pub(super) fn check_sessions(claim: &Claim, hard: u64, found: &mut Findings) {
    let Claim::Sessions(sessions, at) = claim else { return };
    let needed = descriptors::needed(*sessions);
    if hard < needed {
        found.warn(
            *at,
            format!("{sessions} sessions need {needed} open files, and the system allows {hard}"),
            "allow more where Gatepost runs (`LimitNOFILE=` in a systemd unit, `ulimits` of a container), or lower \
             `limits: { sessions: … }`",
        );
    }
}

/// Checks a claim about an address; others are left alone. An address that a running Gatepost
/// holds is only a warning.
pub(super) fn check_port(claim: &Claim, found: &mut Findings) {
    let Claim::Port(address, at) = claim else { return };
    let Err(error) = bind(*address) else { return };
    match error.kind() {
        io::ErrorKind::AddrInUse => in_use(*address, *at, found),
        io::ErrorKind::PermissionDenied => found.fault(
            *at,
            format!("`{address}` needs a privilege"),
            "ports below 1024 need CAP_NET_BIND_SERVICE, which a systemd unit can give; or take a higher port",
        ),
        io::ErrorKind::AddrNotAvailable => found.fault(
            *at,
            format!("`{address}` is not an address of this machine"),
            "`ip address` lists them; `0.0.0.0` and `\"[::]\"` stand for all of them",
        ),
        _ => found.fault(*at, format!("`{address}` cannot be bound: {error}"), "take another address or port"),
    }
}

fn in_use(address: SocketAddr, at: Place, found: &mut Findings) {
    match holder::of(address) {
        Some(Holder { name, process }) if name == env!("CARGO_PKG_NAME") => found.warn(
            at,
            format!("`{address}` is held by the running Gatepost (process {process})"),
            "nothing, if that is the one this configuration is for",
        ),
        Some(Holder { name, process }) => found.fault(
            at,
            format!("`{address}` is in use by `{name}` (process {process})"),
            "stop it, or take another address or port",
        ),
        None => found.fault(
            at,
            format!("`{address}` is in use"),
            "if a running Gatepost holds it, all is well; otherwise stop what does (`ss -ltnp` as root names it), \
             or take another port",
        ),
    }
}

/// As the gateway binds: IPv6 without IPv4, and not held up by connections that are going down.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}
