//! Prints the rows of a statement as they come:
//!
//! ```sh
//! cargo run --example stream -- 'ws://alice:secret@127.0.0.1:6434/stream?database=app' 'SELECT * FROM orders WHERE id < $1' 10
//! ```

use std::error::Error;

use heliosproxy::stream::StreamingQueryClient;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(sql)) = (args.next(), args.next()) else {
        return Err("usage: stream ADDRESS SQL [PARAMETER]...".into());
    };
    let params: Vec<Value> = args.map(Value::from).collect();

    let mut client = StreamingQueryClient::connect(&address).await?;
    let columns = client.start_stream(&sql, &params).await?;
    println!("{}", columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join("\t"));
    while let Some(rows) = client.next_batch().await? {
        for row in rows {
            println!("{}", row.iter().map(Value::to_string).collect::<Vec<_>>().join("\t"));
        }
    }
    eprintln!("{} rows", client.get_total_rows().unwrap_or_default());
    Ok(client.close().await?)
}
