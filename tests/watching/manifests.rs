//! What containers and Kubernetes are told, as far as it can be checked without either.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_norway::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn words<'a>(values: &'a Value, key: &'a str) -> Vec<&'a str> {
    let named = |value: &'a Value| value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"));
    values.as_array().into_iter().flatten().map(named).collect()
}

/// Of a section that is a mapping.
fn keys(values: &Value) -> BTreeSet<&str> {
    values.as_object().into_iter().flat_map(|values| values.keys().map(String::as_str)).collect()
}

/// Nothing in it is spelled otherwise than what is known.
fn assert_known(what: &str, values: &Value, known: &[&str]) {
    let unknown: Vec<&str> = keys(values).into_iter().filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "{what} has {unknown:?}");
}

fn assert_pinned(image: &str) {
    let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
    assert!(!tag.is_empty() && tag != "latest", "{image} may be another one tomorrow");
}

#[test]
fn the_image_runs_without_rights_and_is_made_of_what_is_there() {
    let joined = text("docker/Dockerfile").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let instructions: Vec<(&str, &str)> = lines.map(|line| line.split_once(' ').unwrap()).collect();
    let last_stage = instructions.iter().rposition(|(name, _)| *name == "FROM").unwrap();
    let last = &instructions[last_stage..];
    let of = |name: &str| {
        let found = last.iter().rev().find(|(found, _)| *found == name);
        found.unwrap_or_else(|| panic!("the image has no {name}")).1.trim()
    };
    for (_, image) in instructions.iter().filter(|(name, _)| *name == "FROM") {
        assert_pinned(image.split(' ').next().unwrap());
    }
    assert!(!["root", "0"].contains(&of("USER")), "it runs as root");
    for name in ["ENTRYPOINT", "CMD"] {
        let program: Vec<String> = serde_json::from_str(of(name)).unwrap_or_else(|_| panic!("{name} needs a shell"));
        assert!(!program.is_empty());
    }
    let check = of("HEALTHCHECK").split_once("CMD").unwrap().1.trim();
    let check: Vec<String> = serde_json::from_str(check).expect("a check that needs no shell");
    let program: Vec<String> = serde_json::from_str(of("ENTRYPOINT")).unwrap();
    assert_eq!(check[0], program[0], "the image has no other program");
    assert_eq!(of("STOPSIGNAL"), "SIGTERM");
    for (_, sources) in instructions.iter().filter(|(name, _)| *name == "COPY") {
        let (paths, from_stage) = match sources.strip_prefix("--from=build ") {
            Some(paths) => (paths, true),
            None => (*sources, false),
        };
        let mut paths: Vec<&str> = paths.split_whitespace().collect();
        paths.pop().expect("where to");
        assert!(from_stage || paths.iter().all(|path| file(path).exists()), "{paths:?}");
    }
    // Cargo wants every target of its manifest, built or not.
    let copied: String = instructions.iter().map(|(_, rest)| format!("{rest} ")).collect();
    for place in ["src", "benches", "Cargo.lock"] {
        assert!(copied.contains(&format!("{place} ")), "{place} is not in the image that builds");
    }
}

#[test]
fn compose_names_what_there_is() {
    let compose = yaml("docker/compose.yaml");
    assert_known("compose.yaml", &compose, &["services"]);
    let services = compose["services"].as_object().unwrap();
    const KNOWN: [&str; 11] = [
        "image",
        "build",
        "environment",
        "depends_on",
        "healthcheck",
        "volumes",
        "ports",
        "read_only",
        "cap_drop",
        "security_opt",
        "command",
    ];
    for (name, service) in services {
        assert_known(name, service, &KNOWN);
        match service["image"].as_str() {
            Some(image) => assert_pinned(image),
            None => {
                let build = &service["build"];
                let context = format!("docker/{}", build["context"].as_str().unwrap());
                assert!(file(&format!("{context}/{}", build["dockerfile"].as_str().unwrap())).exists(), "{build}");
            }
        }
        let needed = match &service["depends_on"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            named => keys(named),
        };
        for other in needed {
            assert!(services.contains_key(other), "{name} depends on {other}");
            let waits = service["depends_on"][other]["condition"] == "service_healthy";
            assert!(!waits || services[other]["healthcheck"].is_object(), "nobody says whether {other} is healthy");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(file(&format!("docker/{source}")).exists(), "{name} mounts {source}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} lets everybody in at {port}");
        }
    }
    let proxy = &services["heliosproxy"]["environment"];
    assert!(services.contains_key(proxy["HELIOSPROXY_UPSTREAM_HOST"].as_str().unwrap()));
    assert_eq!(proxy["HELIOSPROXY_UPSTREAM_PASSWORD"], services["postgres"]["environment"]["POSTGRES_PASSWORD"]);

    // Who is asked by name is a service, too: Prometheus asks the proxy, Grafana Prometheus.
    let host_of = |url: &str| url.trim_start_matches("http://").split(':').next().unwrap().to_owned();
    let prometheus = yaml("docker/prometheus/prometheus.yml");
    let target = prometheus["scrape_configs"][0]["static_configs"][0]["targets"][0].as_str().unwrap();
    assert!(services.contains_key(&host_of(target)), "{target}");
    let sources = yaml("docker/grafana/provisioning/datasources/prometheus.yml");
    let source = &sources["datasources"][0];
    assert!(services.contains_key(&host_of(source["url"].as_str().unwrap())), "{source}");
    let dashboard: Value = serde_json::from_str(&text("docker/grafana/dashboards/heliosproxy.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert_eq!(panel["datasource"]["uid"], source["uid"], "{}", panel["title"]);
    }
    let provider = &yaml("docker/grafana/provisioning/dashboards/heliosproxy.yml")["providers"][0];
    let directory = provider["options"]["path"].as_str().unwrap();
    let mounted = services["grafana"]["volumes"].as_array().unwrap().iter();
    assert!(mounted.filter_map(Value::as_str).any(|volume| volume.split(':').nth(1) == Some(directory)));
}

#[test]
fn the_sidecar_is_a_deployment_that_kubernetes_takes() {
    let manifest = yaml("docker/kubernetes/sidecar.yaml");
    assert_known("sidecar.yaml", &manifest, &["apiVersion", "kind", "metadata", "spec"]);
    assert_eq!((manifest["apiVersion"].as_str(), manifest["kind"].as_str()), (Some("apps/v1"), Some("Deployment")));
    let spec = &manifest["spec"];
    assert_known("spec", spec, &["replicas", "selector", "template"]);
    let (wanted, labels) = (&spec["selector"]["matchLabels"], &spec["template"]["metadata"]["labels"]);
    for key in keys(wanted) {
        assert_eq!(wanted[key], labels[key], "the selector does not find the pods");
    }
    let pod = &spec["template"]["spec"];
    assert_known("pod", pod, &["terminationGracePeriodSeconds", "initContainers", "containers", "volumes"]);
    let [proxy] = &pod["initContainers"].as_array().unwrap()[..] else { panic!("one sidecar") };
    assert_eq!(proxy["restartPolicy"], "Always", "it ends before the application begins");
    assert_pinned(proxy["image"].as_str().unwrap());
    const CONTAINER: [&str; 11] = [
        "name",
        "image",
        "restartPolicy",
        "env",
        "ports",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "resources",
        "securityContext",
        "volumeMounts",
    ];
    const PROBE: [&str; 4] = ["httpGet", "periodSeconds", "failureThreshold", "timeoutSeconds"];
    assert_known("the sidecar", proxy, &CONTAINER);
    let ports = words(&proxy["ports"], "name");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_known(probe, &proxy[probe], &PROBE);
        assert!(ports.contains(&proxy[probe]["httpGet"]["port"].as_str().unwrap()), "{probe} asks at no port");
    }
    for variable in proxy["env"].as_array().unwrap() {
        assert_known("a variable", variable, &["name", "value", "valueFrom"]);
        // Kubernetes takes strings only: an unquoted number or word like yes is refused.
        assert!(variable["value"].is_string() || variable["valueFrom"].is_object(), "{variable}");
    }
    // Longer than transactions have to end.
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > heliosproxy::config::Config::default().server.shutdown_timeout_secs);
    let security = &proxy["securityContext"];
    assert_eq!((&security["runAsNonRoot"], &security["allowPrivilegeEscalation"]), (&true.into(), &false.into()));
    let annotations = &spec["template"]["metadata"]["annotations"];
    let scraped = annotations["prometheus.io/port"].as_str().unwrap();
    let served = proxy["ports"][0]["containerPort"].as_u64().unwrap().to_string();
    assert_eq!(scraped, served);
}

#[test]
fn the_packaged_service_can_read_what_it_is_given() {
    let manifest: toml_edit::DocumentMut = text("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let unit = text("packaging/heliosproxy.service");
    assert!(unit.contains("DynamicUser=yes"), "otherwise it is a known user's to read it");
    let mut installed = BTreeSet::new();
    for asset in assets {
        let [source, target, mode] =
            [0, 1, 2].map(|at| asset.as_array().and_then(|parts| parts.get(at)?.as_str()).expect("three strings"));
        assert!(source.starts_with("target/") || source.contains('*') || file(source).exists(), "{source}");
        assert!(mode.ends_with('4') || mode.ends_with('5'), "nobody but root can read {target}");
        let name = target
            .strip_suffix('/')
            .map_or(target.into(), |directory| format!("{directory}/{}", source.rsplit('/').next().unwrap()));
        installed.insert(format!("/{name}"));
    }
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    for path in start.split(' ').filter(|word| word.starts_with('/')) {
        assert!(installed.contains(path), "{path} is not in the package");
    }
}
