//! Names in certificates that webpki does not read.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The first common name of the subject, which is the one that PostgreSQL takes.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    // A name with a NUL in it is another name to those who stop there.
    (!name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

/// `host` is the common name of a certificate that has no alternative names, as PostgreSQL's manual shows how to make
/// one. libpq still takes these; where alternative names exist, only they count.
pub(super) fn is_only_name(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let has_no_alternatives = matches!(parsed.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME), Ok(None));
    has_no_alternatives && common_name(certificate).is_some_and(|name| is_match(&name, host))
}

/// `*.` at the beginning stands for exactly one label.
fn is_match(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(parent) = pattern.strip_prefix("*.") else { return false };
    host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
}

/// Whether that time lies in the certificate's validity.
pub(super) fn is_valid_at(certificate: &CertificateDer<'_>, unix_secs: u64) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let now = i64::try_from(unix_secs).ok().and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    now.is_some_and(|now| certificate.validity().is_valid_at(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(is_match("Db.Example.org", "db.example.org"));
        assert!(is_match("*.example.org", "db.example.org"));
        assert!(!is_match("*.example.org", "a.b.example.org"));
        assert!(!is_match("*.example.org", "example.org"));
        assert!(!is_match("*.example.org", ".example.org"));
        assert!(!is_match("db.example.org", "other.example.org"));
    }
}
