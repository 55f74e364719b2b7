//! Reads through views, materialized views, partitions and inheritance.

use super::scenario::given;

const PARTITIONS: &str = "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
    INSERT INTO p VALUES (1, 1), (101, 1)";
const INHERITANCE: &str = "CREATE TABLE parent (id int, v int);
    CREATE TABLE child () INHERITS (parent); CREATE TABLE grandchild () INHERITS (child);
    INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 1); INSERT INTO grandchild VALUES (3, 1)";
const VIEWS: &str = "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1);
    CREATE VIEW inner_view AS SELECT id, v FROM t; CREATE VIEW outer_view AS SELECT v FROM inner_view";

#[tokio::test]
async fn a_view_shows_a_write_to_its_table() {
    given(VIEWS).read("SELECT v FROM outer_view").write(&["UPDATE t SET v = 2"]).await;
}

#[tokio::test]
async fn a_table_shows_a_write_through_an_updatable_view() {
    given(VIEWS).read("SELECT v FROM t").write(&["UPDATE outer_view SET v = 2"]).await;
}

#[tokio::test]
async fn a_view_shows_a_write_through_another_view() {
    given(VIEWS).read("SELECT v FROM inner_view").write(&["DELETE FROM outer_view"]).await;
}

#[tokio::test]
async fn a_view_that_is_replaced_answers_as_its_new_definition_says() {
    given(VIEWS)
        .read("SELECT v FROM outer_view")
        .write(&["CREATE OR REPLACE VIEW outer_view AS SELECT v + 10 AS v FROM inner_view"])
        .await;
}

#[tokio::test]
async fn a_materialized_view_changes_when_it_is_refreshed() {
    given("CREATE TABLE t (v int); INSERT INTO t VALUES (1); CREATE MATERIALIZED VIEW m AS SELECT v FROM t")
        .prepare("UPDATE t SET v = 2")
        .read("SELECT v FROM m")
        .write(&["REFRESH MATERIALIZED VIEW m"])
        .await;
}

#[tokio::test]
async fn a_materialized_view_changes_when_it_is_refreshed_concurrently() {
    given(
        "CREATE TABLE t (v int); INSERT INTO t VALUES (1); CREATE MATERIALIZED VIEW m AS SELECT v FROM t;
         CREATE UNIQUE INDEX ON m (v)",
    )
    .prepare("INSERT INTO t VALUES (2)")
    .read("SELECT v FROM m ORDER BY v")
    .write(&["REFRESH MATERIALIZED VIEW CONCURRENTLY m"])
    .await;
}

#[tokio::test]
async fn a_partitioned_table_shows_a_write_to_a_partition() {
    given(PARTITIONS).read("SELECT * FROM p ORDER BY id").write(&["UPDATE p2 SET v = 2"]).await;
}

#[tokio::test]
async fn a_partition_shows_a_write_to_the_partitioned_table() {
    given(PARTITIONS).read("SELECT * FROM p2").write(&["UPDATE p SET v = 2"]).await;
}

#[tokio::test]
async fn a_partition_shows_a_row_that_moves_into_it() {
    given(PARTITIONS).read("SELECT * FROM p2 ORDER BY id").write(&["UPDATE p SET id = 150 WHERE id = 1"]).await;
}

#[tokio::test]
async fn a_partition_shows_a_row_inserted_through_the_partitioned_table() {
    given(PARTITIONS).read("SELECT * FROM p1 ORDER BY id").write(&["INSERT INTO p VALUES (2, 2)"]).await;
}

#[tokio::test]
async fn a_partitioned_table_shows_a_truncated_partition() {
    given(PARTITIONS).read("SELECT count(*) FROM p").write(&["TRUNCATE p1"]).await;
}

#[tokio::test]
async fn a_partition_shows_the_truncation_of_the_partitioned_table() {
    given(PARTITIONS).read("SELECT count(*) FROM p1").write(&["TRUNCATE p"]).await;
}

#[tokio::test]
async fn a_partitioned_table_shows_a_partition_that_is_attached() {
    given(&format!("{PARTITIONS}; CREATE TABLE p3 (id int, v int); INSERT INTO p3 VALUES (201, 3)"))
        .read("SELECT * FROM p ORDER BY id")
        .write(&["ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (200) TO (300)"])
        .await;
}

#[tokio::test]
async fn a_partitioned_table_loses_a_partition_that_is_detached() {
    given(PARTITIONS).read("SELECT * FROM p ORDER BY id").write(&["ALTER TABLE p DETACH PARTITION p2"]).await;
}

#[tokio::test]
async fn a_new_partition_is_read_and_written_like_the_others() {
    given(PARTITIONS)
        .read("SELECT * FROM p ORDER BY id")
        .write(&["CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300)", "INSERT INTO p3 VALUES (201, 3)"])
        .await;
}

#[tokio::test]
async fn a_parent_shows_a_write_to_its_grandchild() {
    given(INHERITANCE).read("SELECT * FROM parent ORDER BY id").write(&["UPDATE grandchild SET v = 2"]).await;
}

#[tokio::test]
async fn a_grandchild_shows_a_write_to_its_grandparent() {
    given(INHERITANCE).read("SELECT * FROM grandchild").write(&["UPDATE parent SET v = 2"]).await;
}

#[tokio::test]
async fn only_the_parent_is_read_with_only() {
    given(INHERITANCE).read("SELECT * FROM ONLY parent").write(&["UPDATE parent SET v = 2 WHERE id = 1"]).await;
}

#[tokio::test]
async fn a_parent_shows_a_table_that_starts_to_inherit() {
    given(&format!("{INHERITANCE}; CREATE TABLE late (id int, v int); INSERT INTO late VALUES (4, 1)"))
        .read("SELECT * FROM parent ORDER BY id")
        .write(&["ALTER TABLE late INHERIT parent"])
        .await;
}

#[tokio::test]
async fn a_join_shows_a_write_to_either_table() {
    let setup = "CREATE TABLE a (id int); CREATE TABLE b (id int, v int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1)";
    let read = "SELECT v FROM a JOIN b USING (id)";
    given(setup).read(read).write(&["UPDATE b SET v = 2"]).await;
    given(setup).read(read).write(&["DELETE FROM a"]).await;
}

#[tokio::test]
async fn a_table_named_only_in_a_subquery_counts() {
    let setup =
        "CREATE TABLE a (id int); CREATE TABLE b (id int); INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1)";
    for read in [
        "SELECT id FROM a WHERE id IN (SELECT id FROM b) ORDER BY id",
        "SELECT (SELECT count(*) FROM b)",
        "WITH x AS (SELECT id FROM b) SELECT count(*) FROM x",
        "SELECT id FROM a EXCEPT SELECT id FROM b",
        "SELECT a.id FROM a, LATERAL (SELECT id FROM b WHERE b.id = a.id) s ORDER BY 1",
    ] {
        given(setup).read(read).write(&["INSERT INTO b VALUES (2)"]).await;
    }
}

#[tokio::test]
async fn the_table_command_and_values_are_reads_too() {
    given("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").read("TABLE t").write(&["UPDATE t SET v = 2"]).await;
}
