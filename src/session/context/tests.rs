use super::*;

const BASE: Baseline = Baseline { fingerprint: [1; 32], read_committed: true, temporary: false };

fn context() -> Context {
    let mut context = Context::new(1, b"user");
    context.report(b"client_encoding", b"UTF8");
    context.report(b"standard_conforming_strings", b"on");
    context.begin(BASE);
    context
}

fn set(name: &str, value: &str) -> SetAction {
    SetAction::Set { name: name.into(), value: Some(value.into()), local: false }
}

fn reset(name: &str) -> SetAction {
    SetAction::Reset { name: name.into() }
}

#[test]
fn a_set_makes_another_digest_and_reset_goes_back() {
    let mut session = context();
    let before = *session.digest().unwrap();
    session.apply(&set("search_path", "a"));
    assert_ne!(*session.digest().unwrap(), before);
    session.apply(&reset("search_path"));
    assert_eq!(*session.digest().unwrap(), before);
}

#[test]
fn a_session_with_temporary_objects_shares_its_digest_with_nobody() {
    let (mut session, mut other) = (context(), context());
    assert_eq!(session.digest(), other.digest());
    let temporary = Baseline { temporary: true, ..BASE };
    let mut seen = std::collections::HashSet::new();
    for session in [&mut session, &mut other] {
        for _ in 0..2 {
            session.forget();
            session.read(temporary);
            assert!(seen.insert(session.digest().copied()), "nor with its own past");
        }
    }
    session.discard_temporary();
    other.forget();
    other.read(BASE);
    assert_eq!(session.digest(), other.digest(), "until they are gone");
    assert_eq!(session.digest(), context().digest());
}

#[test]
fn settings_without_influence_change_nothing() {
    let mut session = context();
    let before = *session.digest().unwrap();
    session.apply(&set("application_name", "x"));
    session.apply(&set("myapp.tenant", "7"));
    session.report(b"application_name", b"y");
    assert_eq!(session.application_name(), b"y");
    assert_eq!(*session.digest().unwrap(), before);
    session.report(b"TimeZone", b"UTC");
    assert_ne!(*session.digest().unwrap(), before);
}

#[test]
fn reset_after_a_reading_in_mid_session_is_unknown() {
    let mut session = context();
    session.forget();
    assert!(session.digest().is_none());
    assert!(!session.read(BASE), "this is not what the session began with");
    session.apply(&reset("timezone"));
    assert!(session.digest().is_none());
}

#[test]
fn a_new_session_authorization_takes_the_role_with_it() {
    let (mut one, mut two) = (context(), context());
    one.apply(&set("role", "a"));
    one.apply(&set("session_authorization", "b"));
    two.apply(&set("session_authorization", "b"));
    assert_eq!(one.digest(), two.digest());
    one.apply(&SetAction::ResetAll);
    assert_eq!(one.digest(), two.digest());
    one.discard_all();
    assert_eq!(one.digest(), context().digest());
}

#[test]
fn users_and_databases_differ() {
    let digest = |database, user: &[u8]| {
        let mut session = Context::new(database, user);
        session.begin(BASE);
        *session.digest().unwrap()
    };
    assert_ne!(digest(1, b"a"), digest(2, b"a"));
    assert_ne!(digest(1, b"a"), digest(1, b"b"));
    let mut moved = Context::new(1, b"a");
    moved.begin(BASE);
    moved.moves_to(2);
    assert_eq!(moved.digest(), None);
    moved.begin(BASE);
    assert_eq!(moved.digest(), Some(&digest(2, b"a")));
}

fn set_local(name: &str, value: &str) -> SetAction {
    SetAction::Set { name: name.into(), value: Some(value.into()), local: true }
}

/// The digest of a session in which `actions` were done outside a block.
fn digest_after(actions: &[SetAction]) -> Option<[u8; 32]> {
    let mut session = context();
    actions.iter().for_each(|action| session.apply(action));
    session.digest().copied()
}

#[test]
fn a_block_takes_its_settings_with_it_or_leaves_them() {
    let in_block = |committed| {
        let mut session = context();
        session.apply_in_block(&set("search_path", "a"));
        session.apply_in_block(&set_local("datestyle", "b"));
        assert_eq!(session.digest().copied(), digest_after(&[set("search_path", "a"), set("datestyle", "b")]));
        session.end_block(committed);
        session.digest().copied()
    };
    assert_eq!(in_block(Some(true)), digest_after(&[set("search_path", "a")]));
    assert_eq!(in_block(Some(false)), digest_after(&[]));
    assert_eq!(in_block(None), None);
}

#[test]
fn the_last_one_counts_in_the_block_and_the_last_that_is_not_local_after_it() {
    let mut session = context();
    session.apply_in_block(&set_local("datestyle", "b"));
    session.apply_in_block(&set("datestyle", "c"));
    session.apply_in_block(&set_local("datestyle", "d"));
    assert_eq!(session.digest().copied(), digest_after(&[set("datestyle", "d")]));
    session.end_block(Some(true));
    assert_eq!(session.digest().copied(), digest_after(&[set("datestyle", "c")]));
}

#[test]
fn what_a_savepoint_may_have_undone_is_unknown() {
    let mut session = context();
    session.apply_in_block(&set("datestyle", "b"));
    session.savepoint();
    session.rolled_back_to_savepoint();
    assert_eq!(session.digest().copied(), digest_after(&[set("datestyle", "b")]), "it was set before");
    session.apply_in_block(&set("datestyle", "c"));
    session.rolled_back_to_savepoint();
    assert!(session.digest().is_none());
    session.end_block(Some(false));
    assert!(session.digest().is_none());
}

#[test]
fn a_savepoint_ends_with_its_block() {
    let mut session = context();
    session.savepoint();
    session.end_block(Some(true));
    session.apply_in_block(&set("datestyle", "b"));
    session.rolled_back_to_savepoint();
    assert!(session.digest().is_some());
}

#[test]
fn what_changes_transactions_is_not_followed() {
    for name in ["transaction_isolation", "default_transaction_isolation", "transaction_read_only"] {
        let mut session = context();
        session.apply_in_block(&set(name, "serializable"));
        assert!(session.digest().is_none());
        session.end_block(Some(false));
        assert!(session.digest().is_none());
    }
}
