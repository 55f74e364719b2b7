//! Asks a running proxy over HTTP whether it is ready, for health checks in images that have no curl.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For each of connecting, asking and being answered.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer that is read.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// What the proxy says of itself at `host:port`, or why it cannot be asked. The first is true if clients should be sent there.
pub fn ask(address: &str) -> io::Result<(bool, String)> {
    let mut last = io::Error::other("the name stands for no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, PATIENCE) {
            Ok(stream) => return exchange(stream, address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, host: &str) -> io::Result<(bool, String)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("that is no HTTP server"))?;
    Ok((head.starts_with("HTTP/1.1 200"), body.to_owned()))
}
