//! What is shipped beside the binary fits it: dashboard, alerts, probes, units, completions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::metrics::promtool_program;
use crate::harness::{Stage, cluster, http, proxy};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of metrics in a text: words that begin as the proxy's do.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("heliosdb_") || word.starts_with("process_")).map(String::from).collect()
}

fn run(arguments: &[&str]) -> Output {
    proxy::command(cluster()).args(arguments).output().unwrap()
}

#[tokio::test]
async fn every_metric_that_the_dashboard_and_the_alerts_ask_for_exists() {
    let stage = Stage::new().await;
    let (_, exposition) = http::get(stage.proxy.http, "/metrics").await.unwrap();
    let existing: BTreeSet<&str> = exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for (path, least) in [("docker/grafana/dashboards/heliosproxy.json", 15), ("docker/prometheus/alerts.yml", 6)] {
        let asked = metrics_in(&text(path));
        assert!(asked.len() >= least, "{path} asks for {asked:?}");
        for name in asked {
            assert!(existing.contains(name.as_str()), "{path} asks for {name}, which the proxy does not have");
        }
    }
    // Labels and their values, too: every selector of the dashboard finds a series.
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("docker/grafana/dashboards/heliosproxy.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            for selector in expression.split("heliosdb_").skip(1) {
                let Some((name, labels)) = selector.split_once('{') else { continue };
                let labels =
                    labels.split('}').next().unwrap().split(',').filter(|label| {
                        !label.starts_with("instance") && !label.starts_with("job") && !label.is_empty()
                    });
                for label in labels {
                    let found = exposition
                        .lines()
                        .any(|line| line.starts_with(&format!("heliosdb_{name}{{")) && line.contains(label));
                    assert!(found, "no series of heliosdb_{name} has {label}, in {expression}");
                }
            }
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts_and_they_fire() {
    let check = |arguments: &[&str]| {
        let output = Command::new(promtool_program())
            .args(arguments)
            .current_dir(file("docker/prometheus"))
            .output()
            .expect("promtool is needed: scripts/test.sh installs it");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    };
    check(&["check", "config", "prometheus.yml"]);
    check(&["check", "rules", "alerts.yml"]);
    check(&["test", "rules", "alerts_test.yml"]);
}

#[tokio::test]
async fn probes_ask_for_paths_that_exist_and_variables_are_keys() {
    let stage = Stage::new().await;
    let manifest = text("docker/kubernetes/sidecar.yaml");
    let paths: BTreeSet<&str> =
        manifest.split("path: ").skip(1).filter_map(|rest| rest.split([',', ' ', '}']).next()).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    for path in paths {
        assert_eq!(http::get(stage.proxy.http, path).await.unwrap().0, 200, "{path}");
    }
    let mut variables = BTreeSet::new();
    for path in ["docker/kubernetes/sidecar.yaml", "docker/compose.yaml", "docker/Dockerfile"] {
        let text = text(path);
        let words = text.split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
        variables.extend(words.filter(|word| word.starts_with("HELIOSPROXY_")).map(String::from));
    }
    assert!(variables.len() >= 7, "{variables:?}");
    for name in variables {
        // An empty value may be wrong for the key, an unknown name always is.
        let output = proxy::command(cluster()).arg("--check").env(&name, "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("unknown variable"), "{name}: {said}");
    }
}

#[tokio::test]
async fn the_binary_can_ask_a_running_proxy_how_it_is() {
    let stage = Stage::new().await;
    let address = format!("127.0.0.1:{}", stage.proxy.http);
    let ask = |address: String| tokio::task::spawn_blocking(move || run(&["--health", &address]));
    let output = ask(address).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("\"status\":\"healthy\""), "{said}");
    let output = ask(format!("127.0.0.1:{}", crate::harness::port::free())).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!output.stderr.is_empty());
}

#[test]
fn completions_and_the_manual_page_know_every_flag() {
    for arguments in [&["--completions", "bash"][..], &["--completions", "zsh"], &["--completions", "fish"], &["--man"]]
    {
        let output = run(arguments);
        let text = String::from_utf8(output.stdout).unwrap().replace('\\', "");
        assert!(output.status.success(), "{arguments:?}");
        for flag in ["upstream", "listen", "no-cache", "health", "check"] {
            assert!(text.contains(flag), "{flag} is not in {arguments:?}:\n{text}");
        }
    }
}
