//! Who may see what.

use crate::harness::{Client, Stage};

/// Rows of two owners under row security, two users who are allowed to read. Roles belong to the whole cluster, so their
/// names carry the database's.
async fn two_users() -> (Stage, String, String) {
    let stage = Stage::new().await;
    let (ann, bob) = (format!("ann_{}", stage.database), format!("bob_{}", stage.database));
    let setup = format!(
        "CREATE ROLE {ann} LOGIN; CREATE ROLE {bob} LOGIN;
         CREATE TABLE t (owner text, v text); INSERT INTO t VALUES ('{ann}', 'of ann'), ('{bob}', 'of bob');
         CREATE TABLE plain AS SELECT * FROM t;
         GRANT ALL ON t, plain TO {ann}, {bob}"
    );
    stage.direct().await.run(&setup).await;
    (stage, ann, bob)
}

const READ: &str = "SELECT v FROM t ORDER BY v";

async fn column(client: &Client, sql: &str) -> Vec<String> {
    client.text(sql).await.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

#[tokio::test]
async fn row_security_shows_each_user_his_own_rows() {
    let (stage, ann, bob) = two_users().await;
    let policy = "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (owner = current_user)";
    stage.direct().await.run(policy).await;
    let (all, ann, bob) = (stage.client().await, stage.client_as(&ann).await, stage.client_as(&bob).await);
    for _ in 0..4 {
        assert_eq!(column(&all, READ).await, ["of ann", "of bob"]);
        assert_eq!(column(&ann, READ).await, ["of ann"]);
        assert_eq!(column(&bob, READ).await, ["of bob"]);
    }
}

#[tokio::test]
async fn row_security_that_is_switched_on_through_the_proxy_hides_rows_at_once() {
    let (stage, ann, _) = two_users().await;
    let (admin, ann) = (stage.client().await, stage.client_as(&ann).await);
    stage.cached(&ann, READ).await;
    admin.run("CREATE POLICY p ON t USING (owner = current_user); ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
    for _ in 0..3 {
        assert_eq!(column(&ann, READ).await, ["of ann"]);
    }
    admin.run("ALTER POLICY p ON t USING (owner <> current_user)").await;
    assert_eq!(column(&ann, READ).await, ["of bob"]);
}

#[tokio::test]
async fn row_security_by_a_setting_follows_the_setting() {
    let (stage, ann, _) = two_users().await;
    let policy =
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (v = current_setting('app.wanted', true))";
    stage.direct().await.run(policy).await;
    let client = stage.client_as(&ann).await;
    for wanted in ["of ann", "of bob", "of ann"] {
        client.run(&format!("SET app.wanted = '{wanted}'")).await;
        for _ in 0..3 {
            assert_eq!(column(&client, READ).await, [wanted]);
        }
    }
}

#[tokio::test]
async fn row_security_behind_a_view_counts() {
    let (stage, ann, bob) = two_users().await;
    let setup = format!(
        "CREATE TABLE secret (owner text, v text); INSERT INTO secret SELECT * FROM t; ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON secret USING (owner = current_user); GRANT SELECT ON secret TO {ann}, {bob};
         CREATE VIEW w WITH (security_invoker) AS SELECT v FROM secret; GRANT SELECT ON w TO {ann}, {bob}"
    );
    stage.direct().await.run(&setup).await;
    let (ann, bob) = (stage.client_as(&ann).await, stage.client_as(&bob).await);
    for _ in 0..4 {
        assert_eq!(column(&ann, "SELECT v FROM w").await, ["of ann"]);
        assert_eq!(column(&bob, "SELECT v FROM w").await, ["of bob"]);
    }
}

#[tokio::test]
async fn a_user_without_the_right_gets_no_cached_rows() {
    let (stage, ann, bob) = two_users().await;
    stage.direct().await.run(&format!("REVOKE ALL ON plain FROM {bob}")).await;
    let (ann, bob) = (stage.client_as(&ann).await, stage.client_as(&bob).await);
    stage.cached(&ann, "SELECT v FROM plain").await;
    for _ in 0..3 {
        assert_eq!(bob.fails("SELECT v FROM plain").await, "42501");
        assert!(bob.query_typed("SELECT v FROM plain", &[]).await.is_err());
    }
}

#[tokio::test]
async fn a_right_that_is_revoked_is_gone_and_one_that_is_granted_is_there() {
    let (stage, ann, _) = two_users().await;
    let (admin, client) = (stage.client().await, stage.client_as(&ann).await);
    stage.cached(&client, "SELECT v FROM plain").await;
    admin.run(&format!("REVOKE SELECT ON plain FROM {ann}")).await;
    assert_eq!(client.fails("SELECT v FROM plain").await, "42501", "a revoked right was answered from the cache");
    admin.run(&format!("GRANT SELECT ON plain TO {ann}")).await;
    assert_eq!(column(&client, "SELECT v FROM plain").await.len(), 2);
    stage.cached(&client, "SELECT v FROM plain").await;
    admin.run(&format!("REVOKE USAGE ON SCHEMA public FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM {ann}")).await;
    let code = client.fails("SELECT v FROM public.plain").await;
    assert_eq!(code, "42501", "a revoked schema was answered from the cache");
    assert_eq!(
        client.fails("SELECT v FROM plain").await,
        stage.direct_as(&ann).await.fails("SELECT v FROM plain").await
    );
}

#[tokio::test]
async fn membership_that_is_revoked_takes_the_rights_with_it() {
    let (stage, ann, bob) = two_users().await;
    let admin = stage.client().await;
    admin.run(&format!("REVOKE ALL ON plain FROM {bob}; GRANT {ann} TO {bob}")).await;
    let client = stage.client_as(&bob).await;
    stage.cached(&client, "SELECT v FROM plain").await;
    admin.run(&format!("REVOKE {ann} FROM {bob}")).await;
    assert_eq!(client.fails("SELECT v FROM plain").await, "42501");
}

#[tokio::test]
async fn set_role_changes_who_reads() {
    let (stage, ann, bob) = two_users().await;
    stage
        .direct()
        .await
        .run(&format!("REVOKE ALL ON plain FROM {bob}; CREATE VIEW who AS SELECT current_user::text AS v; GRANT SELECT ON who TO PUBLIC"))
        .await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM plain").await;
    for (set, reset) in [
        (format!("SET ROLE {bob}"), "RESET ROLE"),
        (format!("SET SESSION AUTHORIZATION {bob}"), "RESET SESSION AUTHORIZATION"),
        (format!("SET role = '{bob}'"), "SET ROLE NONE"),
        (format!("SELECT set_config('role', '{bob}', false)"), "RESET ROLE"),
        (format!("DO $$ BEGIN EXECUTE 'SET ROLE {bob}'; END $$"), "DISCARD ALL"),
        (format!("BEGIN; SET LOCAL ROLE {bob}; SAVEPOINT s"), "ROLLBACK"),
    ] {
        client.run(&set).await;
        assert_eq!(client.fails("SELECT v FROM plain").await, "42501", "{set}");
        if set.starts_with("BEGIN") {
            client.run("ROLLBACK TO s").await;
        }
        assert_eq!(client.one("SELECT v FROM who").await, bob, "{set}");
        client.run(reset).await;
        assert_eq!(column(&client, "SELECT v FROM plain").await.len(), 2, "after {reset}");
        assert_eq!(client.one("SELECT v FROM who").await, "postgres", "after {reset}");
    }
    client.run(&format!("SET ROLE {ann}")).await;
    assert_eq!(column(&client, "SELECT v FROM plain").await.len(), 2);
}

#[tokio::test]
async fn users_are_told_apart_by_the_query_that_asks_who_they_are() {
    let (stage, ann, bob) = two_users().await;
    let (a, b) = (stage.client_as(&ann).await, stage.client_as(&bob).await);
    for sql in ["SELECT current_user", "SELECT session_user", "SELECT user", "SELECT current_role, count(*) FROM plain"]
    {
        for _ in 0..4 {
            assert_eq!(column(&a, sql).await, [ann.as_str()], "{sql}");
            assert_eq!(column(&b, sql).await, [bob.as_str()], "{sql}");
        }
    }
}
