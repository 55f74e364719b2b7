//! The proxy's HTTP side: health and metrics.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status line and headers of `GET path`.
pub async fn head(port: u16, path: &str) -> String {
    whole(port, path).await.and_then(|answer| Some(answer.split_once("\r\n\r\n")?.0.to_owned())).unwrap_or_default()
}

/// Status and body of `GET path`, or `None` if nobody answers.
pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let answer = whole(port, path).await?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_string()))
}

async fn whole(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Adds up all series of `wanted`'s name that carry at least its labels: `name`, or `name{label="value"}`. Zero if there is none.
pub fn sum(exposition: &str, wanted: &str) -> f64 {
    let (name, labels) = split(wanted);
    exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(series, _)| {
            let (its_name, its_labels) = split(series);
            its_name == name && labels.iter().all(|label| its_labels.contains(label))
        })
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

fn split(series: &str) -> (&str, Vec<&str>) {
    match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}').split(',').collect()),
        None => (series, Vec::new()),
    }
}
