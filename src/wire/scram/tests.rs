use proptest::prelude::*;

use super::*;

/// RFC 7677, section 3.
#[test]
fn the_rfcs_example_holds() {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let keys = ScramKeys::of_password("pencil", &salt, 4096);
    let verifier =
        Verifier { iterations: 4096, salt, stored_key: sha256(&keys.client_key), server_key: keys.server_key };
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let server = Server::with_nonce(first, verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
    assert_eq!(
        server.first_message(),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last =
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let (answer, recovered) = server.finish(last).unwrap();
    assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert!(recovered == keys);
}

fn exchange(verifier: Verifier, secret: &ClientSecret<'_>) -> Result<ScramKeys, ScramError> {
    let client = Client::default();
    let server = Server::new(client.first_message().as_bytes(), verifier)?;
    let (proof, expectation) = client.prove(server.first_message().as_bytes(), secret)?;
    let (last, keys) = server.finish(proof.as_bytes())?;
    expectation.check(last.as_bytes())?;
    Ok(keys)
}

#[test]
fn recovered_keys_log_in_again_and_a_wrong_password_does_not() {
    let verifier = Verifier::of_password("u", "secret", &[7; 32]);
    let keys = exchange(verifier.clone(), &ClientSecret::Password("secret")).unwrap();
    exchange(verifier.clone(), &ClientSecret::Keys(&keys)).unwrap();
    assert_eq!(exchange(verifier, &ClientSecret::Password("Secret")), Err(ScramError::Proof));
}

#[test]
fn nobody_is_a_mock_user() {
    let mock = Verifier::mock("nobody", &[7; 32]);
    assert_eq!(mock.salt, Verifier::mock("nobody", &[7; 32]).salt);
    assert_eq!(exchange(mock, &ClientSecret::Password("x")), Err(ScramError::Proof));
}

#[test]
fn channel_binding_and_a_stranger_nonce_are_refused() {
    let new = |first: &[u8]| Server::new(first, Verifier::of_password("u", "x", &[7; 32])).err();
    assert_eq!(new(b"p=tls-server-end-point,,n=,r=abc"), Some(ScramError::ChannelBinding));
    assert_eq!(new(b"n,a=x,n=,r=abc"), Some(ScramError::Malformed));
    let server = Server::new(b"n,,n=,r=abc", Verifier::of_password("u", "x", &[7; 32])).unwrap();
    assert_eq!(server.finish(b"c=biws,r=abc,p=AAAA").err(), Some(ScramError::Nonce));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let client = Client::default();
    let verifier = Verifier { server_key: [0; 32], ..Verifier::of_password("u", "x", &[7; 32]) };
    let server = Server::new(client.first_message().as_bytes(), verifier).unwrap();
    let (proof, expectation) = client.prove(server.first_message().as_bytes(), &ClientSecret::Password("x")).unwrap();
    let (last, _) = server.finish(proof.as_bytes()).unwrap();
    assert_eq!(expectation.check(last.as_bytes()), Err(ScramError::ServerSignature));
}

#[test]
fn a_verifier_is_read_as_postgresql_writes_it() {
    let verifier = Verifier::of_password("u", "x", &[7; 32]);
    let encode = |bytes: &[u8]| BASE64.encode(bytes);
    let text = format!(
        "SCRAM-SHA-256$4096:{}${}:{}",
        encode(&verifier.salt),
        encode(&verifier.stored_key),
        encode(&verifier.server_key)
    );
    assert!(Verifier::parse(&text) == Some(verifier));
    for wrong in ["", "md5abc", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
        assert!(Verifier::parse(wrong).is_none(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_message_makes_it_panic(first in ".{0,60}", last in ".{0,60}", raw in prop::collection::vec(any::<u8>(), 0..60)) {
        for first in [first.as_bytes(), &raw, b"n,,n=,r=abc"] {
            if let Ok(server) = Server::new(first, Verifier::mock("u", &[1; 32])) {
                let _ = server.finish(last.as_bytes());
            }
            let _ = Client::default().prove(first, &ClientSecret::Password("x"));
        }
        let _ = Verifier::parse(&last);
        let _ = Expectation { server_signature: [0; 32] }.check(&raw);
    }
}
