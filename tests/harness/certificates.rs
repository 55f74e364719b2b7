//! Throw-away certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// PEM files of one certificate, and of the authority that signed it.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

/// A certificate for `name` (as CN and as DNS name; also for 127.0.0.1), signed by this process's own authority.
pub fn issue(dir: &Path, stem: &str, name: &str) -> Files {
    let key = KeyPair::generate().expect("a key");
    let mut params =
        CertificateParams::new(vec![name.to_string(), "localhost".into(), "127.0.0.1".into()]).expect("valid names");
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority()).expect("a certificate");
    let files = Files {
        certificate: dir.join(format!("{stem}.crt")),
        key: dir.join(format!("{stem}.key")),
        authority: dir.join("authority.crt"),
    };
    fs::write(&files.certificate, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&files.authority, authority().pem()).unwrap();
    files
}

fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "HeliosProxy test authority");
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    })
}
