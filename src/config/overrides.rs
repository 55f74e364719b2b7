//! What the command line sets: keys by name, and the parts of an upstream URL.

use std::fmt;

use thiserror::Error;

use super::Host;

/// Settings of the command line. They win over every other source. `Debug` names keys and hides values, since one of them
/// may be a password.
#[derive(Clone, Default)]
pub struct Overrides {
    pub(super) settings: Vec<Setting>,
}

#[derive(Clone)]
pub(super) struct Setting {
    pub flag: &'static str,
    pub key: &'static str,
    pub text: String,
}

/// What is wrong with an upstream URL. Never shows any of it, since it may hold a password.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum UrlError {
    #[error("--upstream: expected postgres://user:password@host:port/database")]
    Scheme,
    #[error("--upstream: a percent sign must be followed by two hexadecimal digits, and all must be UTF-8 without NUL")]
    Encoding,
    #[error("--upstream: unclosed [ in the host")]
    Bracket,
    #[error("--upstream: expected hosts with or without ports, and commas between them")]
    Hosts,
    #[error("--upstream: the port must be a number from 1 to 65535")]
    Port,
    #[error(
        "--upstream: a parameter is not supported; supported are host, port, dbname, user, password, \
         target_session_attrs, sslmode, \
         sslrootcert, sslcert, sslkey, connect_timeout and keepalives_idle"
    )]
    Parameter,
}

impl Overrides {
    /// Sets `key` to what `text` means for it; `flag` is named when the value does not fit.
    pub fn set(&mut self, flag: &'static str, key: &'static str, text: impl Into<String>) {
        self.settings.push(Setting { flag, key, text: text.into() });
    }

    /// Sets the parts of `postgres://user:password@host:port/database?sslmode=...` that the URL names. The host may be the
    /// percent-encoded directory of a Unix socket; parameters may name it too, as in libpq.
    pub fn upstream_url(&mut self, url: &str) -> Result<(), UrlError> {
        let rest =
            url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(UrlError::Scheme)?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (user, address),
            None => ("", authority),
        };
        // A password may be empty on purpose, the other parts may not: empty means absent.
        match user.split_once(':') {
            Some((user, password)) => {
                self.part("upstream.user", user)?;
                self.set("--upstream", "upstream.password", decode(password)?);
            }
            None => self.part("upstream.user", user)?,
        }
        if address.contains(',') {
            self.hosts(address)?;
        } else {
            let (host, port) = split_address(address)?;
            self.part("upstream.host", host)?;
            self.port(port)?;
        }
        self.part("upstream.database", database)?;
        parameters.split('&').filter(|pair| !pair.is_empty()).try_for_each(|pair| self.parameter(pair))
    }

    fn parameter(&mut self, pair: &str) -> Result<(), UrlError> {
        let (name, value) = pair.split_once('=').ok_or(UrlError::Parameter)?;
        let key = match name {
            "host" => "upstream.host",
            "port" => return self.port(value),
            "dbname" => "upstream.database",
            "user" => "upstream.user",
            "password" => "upstream.password",
            "target_session_attrs" => "upstream.target_session_attrs",
            "sslmode" => "upstream.sslmode",
            "sslrootcert" => "upstream.sslrootcert",
            "sslcert" => "upstream.sslcert",
            "sslkey" => "upstream.sslkey",
            "connect_timeout" => "upstream.connect_timeout_secs",
            "keepalives_idle" => "upstream.keepalive_secs",
            _ => return Err(UrlError::Parameter),
        };
        self.set("--upstream", key, decode(value)?);
        Ok(())
    }

    fn part(&mut self, key: &'static str, text: &str) -> Result<(), UrlError> {
        if !text.is_empty() {
            self.set("--upstream", key, decode(text)?);
        }
        Ok(())
    }

    /// A list of hosts, each with a port of its own or not. Checked here for the same reason as [`port`](Self::port).
    fn hosts(&mut self, list: &str) -> Result<(), UrlError> {
        let list = decode(list)?;
        Host::list(&list, 1).map_err(|_| UrlError::Hosts)?;
        self.set("--upstream", "upstream.host", list);
        Ok(())
    }

    /// Checked here and not with the other keys: text after a colon may be a password that somebody forgot an `@` behind.
    fn port(&mut self, text: &str) -> Result<(), UrlError> {
        let port = decode(text)?;
        if !port.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) {
            self.set("--upstream", "upstream.port", port);
            return Ok(());
        }
        if port.is_empty() { Ok(()) } else { Err(UrlError::Port) }
    }
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.settings.iter().map(|setting| (setting.flag, setting.key))).finish()
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; either may be empty.
fn split_address(address: &str) -> Result<(&str, &str), UrlError> {
    let Some(inner) = address.strip_prefix('[') else {
        return Ok(address.split_once(':').unwrap_or((address, "")));
    };
    let (host, rest) = inner.split_once(']').ok_or(UrlError::Bracket)?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if rest.is_empty() => Ok((host, "")),
        None => Err(UrlError::Bracket),
    }
}

fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_first_chunk::<2>().ok_or(UrlError::Encoding)?;
        bytes.push(hex(digits[0])? << 4 | hex(digits[1])?);
        rest = tail;
    }
    let text = String::from_utf8(bytes).map_err(|_| UrlError::Encoding)?;
    if text.contains('\0') { Err(UrlError::Encoding) } else { Ok(text) }
}

fn hex(digit: u8) -> Result<u8, UrlError> {
    (digit as char).to_digit(16).map(|value| value as u8).ok_or(UrlError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<Vec<(&'static str, String)>, UrlError> {
        let mut overrides = Overrides::default();
        overrides.upstream_url(url)?;
        Ok(overrides.settings.into_iter().map(|setting| (&setting.key["upstream.".len()..], setting.text)).collect())
    }

    fn owned(expected: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        expected.iter().map(|(key, text)| (*key, (*text).to_string())).collect()
    }

    #[test]
    fn a_whole_url_sets_every_part() {
        let expected = owned(&[
            ("user", "al@ice"),
            ("password", "p:w/d"),
            ("host", "db.example"),
            ("port", "5433"),
            ("database", "sales"),
            ("sslmode", "verify-full"),
            ("sslrootcert", "/etc/ca.pem"),
        ]);
        let url = "postgres://al%40ice:p:w%2Fd@db.example:5433/sales?sslmode=verify-full&sslrootcert=/etc/ca.pem";
        assert_eq!(parts(url).unwrap(), expected);
    }

    #[test]
    fn parts_that_are_not_named_are_not_set() {
        assert_eq!(parts("postgresql://").unwrap(), owned(&[]));
        assert_eq!(parts("postgresql://db").unwrap(), owned(&[("host", "db")]));
        assert_eq!(parts("postgresql://u@/d").unwrap(), owned(&[("user", "u"), ("database", "d")]));
        assert_eq!(parts("postgres://[::1]:1/").unwrap(), owned(&[("host", "::1"), ("port", "1")]));
    }

    #[test]
    fn there_may_be_several_hosts() {
        let expected = owned(&[("user", "u"), ("host", "a:1,[::1]:2,c"), ("database", "d")]);
        assert_eq!(parts("postgres://u@a:1,[::1]:2,c/d").unwrap(), expected);
        let expected = owned(&[("database", "d"), ("host", "a,b"), ("target_session_attrs", "primary")]);
        assert_eq!(parts("postgres:///d?host=a,b&target_session_attrs=primary").unwrap(), expected);
    }

    #[test]
    fn a_socket_directory_may_be_host_or_parameter() {
        assert_eq!(parts("postgres://%2Frun%2Fpg").unwrap(), owned(&[("host", "/run/pg")]));
        let expected = owned(&[("database", "d"), ("host", "/run/pg")]);
        assert_eq!(parts("postgres:///d?host=/run/pg").unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        assert_eq!(parts("mysql://x"), Err(UrlError::Scheme));
        assert_eq!(parts("postgres://u:%zz@h"), Err(UrlError::Encoding));
        assert_eq!(parts("postgres://u:%4@h"), Err(UrlError::Encoding));
        assert_eq!(parts("postgres://u:%00@h"), Err(UrlError::Encoding));
        assert_eq!(parts("postgres://a,b:secret/d"), Err(UrlError::Hosts));
        assert_eq!(parts("postgres://[::1/d"), Err(UrlError::Bracket));
        assert_eq!(parts("postgres://user:secret/d"), Err(UrlError::Port));
        assert_eq!(parts("postgres://h:0/d"), Err(UrlError::Port));
        assert_eq!(parts("postgres://h/d?color=red"), Err(UrlError::Parameter));
    }

    #[test]
    fn debug_hides_values() {
        let mut overrides = Overrides::default();
        overrides.upstream_url("postgres://u:hunter2@h").unwrap();
        assert!(!format!("{overrides:?}").contains("hunter2"));
    }
}
