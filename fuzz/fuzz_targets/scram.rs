//! No message of the other side makes SCRAM panic.
#![no_main]

use heliosproxy::wire::scram::{Client, ClientSecret, Server, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|messages: (&[u8], &[u8])| {
    let (first, last) = messages;
    let verifier = Verifier::mock("user", &[1; 32]);
    if let Ok(server) = Server::new(first, verifier) {
        let _ = server.finish(last);
    }
    let _ = Client::default().prove(first, &ClientSecret::Password("secret"));
});
