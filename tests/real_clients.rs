//! PostgreSQL's own tools cannot tell the proxy from the server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

use harness::tool::{Said, run};
use harness::{Options, Stage};

const SAMPLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE SEQUENCE numbers START 5;
    CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, m mood DEFAULT 'glad', born date, CHECK (id > 0));
    CREATE INDEX ON people (name); CREATE TABLE pets (owner int REFERENCES people ON DELETE CASCADE, name text);
    CREATE VIEW owners AS SELECT p.name AS person, q.name AS pet FROM people p JOIN pets q ON q.owner = p.id;
    CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
    INSERT INTO people SELECT i, 'name ' || i, 'sad', date '2000-01-01' + i FROM generate_series(1, 500) i;
    INSERT INTO pets SELECT i, E'pet\\t' || i FROM generate_series(1, 100) i; COMMENT ON TABLE people IS 'all of them'";

/// Runs a tool on the proxy and on the server.
async fn both(stage: &Stage, program: &str, args: &[&str]) -> [Said; 2] {
    let ports = [stage.proxy.port.to_string(), stage.cluster.port.to_string()];
    let [proxied, direct] = ports.each_ref().map(|port| {
        let connection = ["-h", "127.0.0.1", "-p", port, "-U", "postgres"];
        connection.iter().chain(args).copied().collect::<Vec<_>>()
    });
    [run(program, &proxied, &[]).await, run(program, &direct, &[]).await]
}

async fn same_script(stage: &Stage, commands: &[&str]) {
    let mut args = vec!["-X", "-d", &stage.database];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    for _ in 0..3 {
        let [proxied, direct] = both(stage, "psql", &args).await;
        assert_eq!(proxied.stdout, direct.stdout, "{commands:?}");
        assert_eq!(proxied.stderr, direct.stderr, "{commands:?}");
        assert_eq!(proxied.success, direct.success, "{commands:?}");
    }
}

#[tokio::test]
async fn psql_describes_everything() {
    let stage = Stage::setup(SAMPLE).await;
    same_script(
        &stage,
        &["\\d", "\\d+ people", "\\d pets", "\\dv+ owners", "\\df+ twice", "\\dT+", "\\ds", "\\di", "\\du", "\\dn+"],
    )
    .await;
    same_script(
        &stage,
        &["SELECT id, name, born FROM people WHERE id < 3 \\gdesc", "SELECT * FROM owners LIMIT 3 \\gx"],
    )
    .await;
}

#[tokio::test]
async fn psql_reads_writes_and_fails_alike() {
    let stage = Stage::setup(SAMPLE).await;
    same_script(
        &stage,
        &["SELECT count(*), max(born), sum(id) FROM people", "TABLE pets LIMIT 5", "SELECT 1; SELECT 2 \\; SELECT 3"],
    )
    .await;
    same_script(
        &stage,
        &[
            "SELECT 'a' \\bind \\g",
            "SELECT no_such_column FROM people",
            "SELECT\n  1 +\n  'x'",
            "\\echo :SQLSTATE :ERROR",
        ],
    )
    .await;
    same_script(
        &stage,
        &[
            "\\copy (SELECT * FROM people ORDER BY id LIMIT 20) TO STDOUT CSV HEADER",
            "\\set FETCH_COUNT 7",
            "SELECT id FROM people ORDER BY id LIMIT 30",
        ],
    )
    .await;
    same_script(
        &stage,
        &[
            "\\timing off",
            "\\encoding",
            "\\encoding LATIN1",
            "SELECT name FROM people WHERE id = 1",
            "\\conninfo_is_not_a_command",
        ],
    )
    .await;
    same_script(
        &stage,
        &[
            "BEGIN",
            "UPDATE people SET name = 'x' WHERE id = 1 RETURNING *",
            "SELECT name FROM people WHERE id = 1",
            "ROLLBACK",
            "SELECT name FROM people WHERE id = 1",
        ],
    )
    .await;
    same_script(&stage, &["\\set ON_ERROR_ROLLBACK on", "BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT"]).await;
}

#[tokio::test]
async fn psql_reads_a_cached_result_in_parts() {
    let stage = Stage::setup(SAMPLE).await;
    let sql = "SELECT id, name, born FROM people ORDER BY id";
    stage.cached(&stage.client().await, sql).await;
    for count in ["1", "7", "500", "1000"] {
        same_script(&stage, &[sql, &format!("\\set FETCH_COUNT {count}"), sql, "\\unset FETCH_COUNT", sql]).await;
    }
    assert!(stage.proxy.hits().await > 0);
}

#[tokio::test]
async fn psql_copies_from_a_file() {
    let stage = Stage::setup(SAMPLE).await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT count(*) FROM pets").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pets.csv");
    std::fs::write(&file, "1,cat\n2,dog\n").unwrap();
    let port = stage.proxy.port.to_string();
    let command = format!("\\copy pets FROM '{}' CSV", file.display());
    run("psql", &["-X", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", &stage.database, "-c", &command], &[])
        .await
        .ok();
    assert_eq!(client.one("SELECT count(*) FROM pets").await, "102");
}

#[tokio::test]
async fn a_dump_is_the_same_and_can_be_restored() {
    let stage = Stage::setup(SAMPLE).await;
    let (database, empty) = (stage.database.clone(), stage.cluster.database().await);
    for format in [&[][..], &["--inserts", "--rows-per-insert=50"]] {
        let args = [&["-d", &database][..], format].concat();
        let [proxied, direct] = both(&stage, "pg_dump", &args).await;
        let (proxied, direct) = (proxied.ok(), direct.ok());
        // Newer versions write a random key into their output.
        let essence = |dump: &str| {
            dump.lines()
                .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(essence(&proxied), essence(&direct));
        if format.is_empty() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("dump.sql");
            std::fs::write(&file, proxied).unwrap();
            let (port, file) = (stage.proxy.port.to_string(), file.display().to_string());
            run(
                "psql",
                &[
                    "-X",
                    "-q",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-U",
                    "postgres",
                    "-d",
                    &empty,
                    "-f",
                    &file,
                ],
                &[],
            )
            .await
            .ok();
        }
    }
    assert_eq!(stage.cluster.connect(&empty).await.one("SELECT count(*) FROM owners").await, "100");
}

#[tokio::test]
async fn pgbench_in_all_query_modes_with_the_cache_on() {
    let stage = Stage::new().await;
    let port = stage.proxy.port.to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let bench = async |more: &[&str]| run("pgbench", &[&common[..], more, &[&stage.database]].concat(), &[]).await;
    bench(&["-i", "-q", "-s", "1"]).await.ok();
    for mode in ["simple", "extended", "prepared"] {
        for script in [&["-S"][..], &[]] {
            let said = bench(&[&["-n", "-M", mode, "-c", "4", "-j", "1", "-t", "50"], script].concat()).await.ok();
            assert!(said.contains("number of failed transactions: 0 "), "{said}");
            assert!(said.contains("200/200"), "{said}");
        }
    }
    // Every transaction adds the same amount to all four tables.
    let client = stage.client().await;
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
        AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)";
    assert_eq!(client.one(sums).await, "t");
    assert_eq!(stage.direct().await.one("SELECT count(*) FROM pgbench_history").await, "600");
    assert_eq!(client.one("SELECT count(*) FROM pgbench_history").await, "600");
}

#[tokio::test]
async fn pgbench_pipelines() {
    let stage = Stage::new().await;
    let port = stage.proxy.port.to_string();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("pipeline.sql");
    let text = "\\set id random(1, 20)\n\\startpipeline\nSELECT v FROM t WHERE id = :id;\nUPDATE t SET v = v + 1 WHERE id = :id;
SELECT v FROM t WHERE id = :id;\n\\endpipeline\n";
    std::fs::write(&script, text).unwrap();
    stage
        .direct()
        .await
        .run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i")
        .await;
    for mode in ["extended", "prepared"] {
        let file = script.display().to_string();
        let args = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-n",
            "-M",
            mode,
            "-c",
            "4",
            "-t",
            "50",
            "-f",
            &file,
            &stage.database,
        ];
        let said = run("pgbench", &args, &[]).await.ok();
        assert!(said.contains("number of failed transactions: 0 "), "{said}");
    }
    assert_eq!(stage.client().await.one("SELECT sum(v) FROM t").await, "400");
}

#[tokio::test]
async fn the_tools_for_administrators_work() {
    let stage = Stage::setup(SAMPLE).await;
    let database = stage.database.clone();
    for (program, args) in [
        ("vacuumdb", vec!["-z", &database]),
        ("reindexdb", vec!["-t", "people", &database]),
        ("clusterdb", vec![&database]),
        ("pg_isready", vec!["-d", &database]),
    ] {
        let [proxied, direct] = both(&stage, program, &args).await;
        assert_eq!((proxied.success, direct.success), (true, true), "{program}: {proxied:?} {direct:?}");
    }
}

#[tokio::test]
async fn a_client_with_the_cache_off_and_one_with_it_on_agree() {
    let stage = Stage::setup(SAMPLE).await;
    let plain = harness::Proxy::start(stage.cluster, &stage.database, &Options::default().arg("--no-cache")).await;
    let without = harness::Client::connect(plain.port, "postgres", &stage.database).await;
    let with = stage.client().await;
    for sql in [
        "SELECT * FROM people ORDER BY id",
        "SELECT * FROM owners ORDER BY person, pet",
        "SELECT m, count(*) FROM people GROUP BY m",
    ] {
        stage.cached(&with, sql).await;
        assert_eq!(with.text(sql).await, without.text(sql).await);
        assert_eq!(with.binary(sql).await, without.binary(sql).await);
    }
}
