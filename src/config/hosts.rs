//! The list of hosts in `upstream.host`.

use thiserror::Error;

/// One of the hosts that `upstream.host` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket (it begins with `/`).
    pub name: String,
    pub port: u16,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?}: expected host, host:port or [address]:port, and more of them behind commas")]
pub struct HostError(String);

impl Host {
    /// The hosts of a list like `db1,db2:5433,[::1]:5432,/run/postgresql`. `port` is for those that name none.
    pub fn list(list: &str, port: u16) -> Result<Vec<Self>, HostError> {
        list.split(',').map(|host| Self::parse(host.trim(), port).ok_or_else(|| HostError(host.to_owned()))).collect()
    }

    fn parse(text: &str, port: u16) -> Option<Self> {
        let host = |name: &str, port| (!name.is_empty()).then(|| Self { name: name.to_owned(), port });
        let number = |text: &str| text.parse().ok().filter(|port| *port > 0);
        if text.starts_with('/') {
            return host(text, port);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let (name, rest) = inner.split_once(']')?;
            return match rest.strip_prefix(':') {
                Some(own) => host(name, number(own)?),
                None if rest.is_empty() => host(name, port),
                None => None,
            };
        }
        match text.split_once(':') {
            // Colons without brackets are an IPv6 address.
            Some((_, rest)) if rest.contains(':') => host(text, port),
            Some((name, own)) => host(name, number(own)?),
            None => host(text, port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_hosts_with_or_without_ports() {
        let hosts = Host::list("db1, db2:5433,[::1]:6000,[::2],::3,/run/pg", 5432).unwrap();
        let hosts: Vec<_> = hosts.iter().map(|host| (host.name.as_str(), host.port)).collect();
        let expected = [("db1", 5432), ("db2", 5433), ("::1", 6000), ("::2", 5432), ("::3", 5432), ("/run/pg", 5432)];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn what_names_no_host_is_refused() {
        for list in ["", "db1,", "db:", "db:0", "db:x", ":5432", "[::1", "[::1]x", "[]:1"] {
            assert!(Host::list(list, 5432).is_err(), "{list}");
        }
    }
}
