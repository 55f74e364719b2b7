//! PostgreSQL's md5 authentication (src/common/md5_common.c): `md5` followed by the hex digits of md5(md5(password user) salt).

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// What a server keeps: `md5` and 32 hex digits.
pub fn stored(user: &str, password: &str) -> String {
    format!("md5{}", hex(&[password.as_bytes(), user.as_bytes()]))
}

/// Whether `text` is such a hash.
pub fn is_stored(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The answer to a server's salt, from what it keeps.
pub fn answer(stored: &str, salt: [u8; 4]) -> String {
    format!("md5{}", hex(&[stored.trim_start_matches("md5").as_bytes(), &salt]))
}

/// Whether a client's answer is right, in a time that does not depend on where it is wrong.
pub fn is_right(given: &[u8], stored: &str, salt: [u8; 4]) -> bool {
    answer(stored, salt).as_bytes().ct_eq(given).into()
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hasher = Md5::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_postgresqls() {
        // SELECT 'md5' || md5('secret' || 'alice')
        assert_eq!(stored("alice", "secret"), "md54a0a68b43b6cd5cf266fa02f196e2371");
        assert!(is_stored(&stored("alice", "secret")) && !is_stored("md5xyz") && !is_stored("secret"));
        let salt = [1, 2, 3, 4];
        assert!(is_right(answer(&stored("alice", "secret"), salt).as_bytes(), &stored("alice", "secret"), salt));
        assert!(!is_right(answer(&stored("alice", "Secret"), salt).as_bytes(), &stored("alice", "secret"), salt));
    }
}
