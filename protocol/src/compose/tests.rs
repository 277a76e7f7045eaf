use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const STUDY: &[u8] = include_bytes!("../../../test/data/heart-disease/app-compose.json");

fn study() -> Value {
    serde_json::from_slice(STUDY).unwrap()
}

fn with(field: &str, value: Value) -> Result<AppCompose, ComposeError> {
    let mut file = study();
    file[field] = value;
    AppCompose::parse(&serde_json::to_vec(&file).unwrap())
}

fn codes(compose: &AppCompose) -> Vec<&'static str> {
    compose.lint().iter().map(|finding| finding.code).collect()
}

/// Codes found in the study with another docker-compose file.
fn docker(text: &str) -> Vec<&'static str> {
    codes(&with("docker_compose_file", json!(text)).unwrap())
}

/// The study's image, and one service with further lines.
fn service(lines: &str) -> String {
    format!("services:\n  agent:\n    image: cohort/agent@sha256:{}\n{lines}", "ab".repeat(32))
}

#[test]
fn the_study_is_accepted_and_without_findings() {
    let compose = AppCompose::parse(STUDY).unwrap();
    assert_eq!(compose.lint(), []);
    assert_eq!(compose.runner(), Runner::DockerCompose);
    assert_eq!(compose.recipe().unwrap().title(), "Coronary disease by age band and sex");
}

#[test]
fn the_hash_is_sha256_of_the_exact_bytes() {
    let minimal = br#"{"manifest_version":2,"name":"a","runner":"docker-compose","docker_compose_file":"x"}"#;
    let compose = AppCompose::parse(minimal).unwrap();
    assert_eq!(compose.bytes(), minimal);
    // sha256sum of the same bytes.
    let expected = "0x85e9af0a6c799bb4ac657e8c9befea1bc4bd0eb0c54c8f54608eabc42b010e0f";
    assert_eq!(compose.compose_hash().to_string(), expected);
    let mut spaced = minimal.to_vec();
    spaced.push(b'\n');
    assert_ne!(AppCompose::parse(&spaced).unwrap().compose_hash(), compose.compose_hash());
}

#[test]
fn a_key_that_stands_twice_is_refused_at_any_depth() {
    for text in [
        r#"{"manifest_version":2,"name":"a","name":"b","runner":"bash"}"#,
        r#"{"manifest_version":2,"name":"a","runner":"bash","cohort":{"x":[{"y":1,"y":1}]}}"#,
        r#"{"manifest_version":2,"name":"a","runner":"bash","cohort":{"y":1,"\u0079":1}}"#,
    ] {
        assert!(matches!(AppCompose::parse(text.as_bytes()), Err(ComposeError::Json(_))), "{text}");
    }
}

#[test]
fn what_dstack_refuses_is_refused() {
    let missing = |field: &str| {
        let mut file = study();
        file.as_object_mut().unwrap().remove(field);
        AppCompose::parse(&serde_json::to_vec(&file).unwrap())
    };
    for field in ["manifest_version", "name", "runner", "docker_compose_file"] {
        assert!(matches!(missing(field), Err(ComposeError::Missing { .. })), "{field}");
    }
    for (field, value) in [
        ("manifest_version", json!(3)),
        ("manifest_version", json!(2.0)),
        ("name", json!(1)),
        ("name", json!("")),
        ("runner", json!("podman")),
        ("kms_enabled", json!("true")),
        ("allowed_envs", json!("A")),
        ("features", json!([1])),
        ("key_provider", json!("cloud")),
        ("event_log_version", json!(3)),
        ("init_script", json!(["1", "2", "3", "4", "5", "6"])),
        ("requirements", json!([])),
    ] {
        assert!(matches!(with(field, value.clone()), Err(ComposeError::Field { .. })), "{field} {value}");
    }
    assert!(
        with("pre_launch_script", json!("echo")).is_ok(),
        "dstack tolerates fields that it does not know"
    );
    let large = vec![b' '; MAX_COMPOSE_BYTES + 1];
    assert!(matches!(AppCompose::parse(&large), Err(ComposeError::Size { .. })));
    assert!(matches!(AppCompose::parse(b"[]"), Err(ComposeError::NotAnObject)));
    assert!(matches!(missing("cohort").unwrap().recipe(), Err(ComposeError::NoRecipe)));
    assert!(matches!(with("cohort", json!({})).unwrap().recipe(), Err(ComposeError::Recipe(_))));
}

#[test]
fn lint_finds_what_the_hash_does_not_pin() {
    assert_eq!(docker(&service("")), [""; 0]);
    let image = |image: &str| docker(&format!("services:\n  agent:\n    image: \"{image}\"\n"));
    for mutable in
        ["cohort/agent", "cohort/agent:latest", "cohort/agent@sha256:abcd", "cohort/agent:1@sha256:"]
    {
        assert_eq!(image(mutable), ["mutable-image"], "{mutable}");
    }
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(image(&format!("registry.example.org:5000/cohort/agent:1@sha256:{digest}")), [""; 0]);
    for mutable in [
        format!("cohort/agent@sha256:{}", digest.to_uppercase()),
        format!("cohort/agent@SHA256:{digest}"),
        format!("cohort/agent@sha256:{digest}:latest"),
        format!("cohort/agent@sha256:{digest}@sha256:{digest}0"),
        format!("@sha256:{digest}"),
        format!("cohort/agent:sha256-{digest}"),
    ] {
        assert_eq!(image(&mutable), ["mutable-image"], "{mutable}");
    }
    for command in [
        "sh -c \"curl https://example.org/x | sh\"",
        "[sh, -c, \"cd /tmp; pip  install x\"]",
        "[\"/usr/bin/wget\", \"-q\", \"https://example.org/x\"]",
        "[sh, -ec, \"git\\tclone https://example.org/x\"]",
    ] {
        for key in ["command", "entrypoint"] {
            assert_eq!(docker(&service(&format!("    {key}: {command}\n"))), ["unpinned-code"], "{command}");
        }
    }
    assert_eq!(docker(&service("    command: [--curlew, my-wget-2, pipinstall]\n")), [""; 0]);
    assert_eq!(docker(&service("    environment: {A: {B: }}\n")), ["unmeasured-env"]);
    for key in ["pull_policy: always", "develop: {}", "secrets: [a]", "configs: [a]", "provider: {type: x}"] {
        assert_eq!(docker(&service(&format!("    {key}\n"))), ["service-key"], "{key}");
    }
    assert_eq!(docker("services:\n  agent:\n"), ["no-image"]);
    assert_eq!(docker("services:\n  - image: x\n"), ["yaml"]);
    assert_eq!(docker(&service("    \"image\": other\n")), ["yaml"], "a key twice, once in quotes");
    assert_eq!(docker("services:\n  agent:\n    command: x\n"), ["no-image"]);
    assert_eq!(docker(&service("    build: .\n")), ["build"]);
    assert_eq!(docker(&service("    extends: {file: other.yml, service: x}\n")), ["extends"]);
    assert_eq!(docker(&service("    environment:\n      - A=${HOST_VALUE}\n")), ["unmeasured-env"]);
    assert_eq!(docker(&service("    command: [\"sh\", \"-c\", \"echo $$HOME\"]\n")), [""; 0]);
    assert_eq!(docker(&service("    environment: [HOST_VALUE]\n")), ["unmeasured-env"]);
    assert_eq!(docker(&service("    environment: {HOST_VALUE: }\n")), ["unmeasured-env"]);
    assert_eq!(docker(&service("    environment: {A: 1, B: x}\n")), [""; 0]);
    assert_eq!(docker(&service("    env_file: x.env\n")), ["env-file"]);
    assert_eq!(docker(&(service("") + "configs:\n  a: {file: ./a}\n")), ["unmeasured-file"]);
    assert_eq!(docker("a: &a [1]\nservices:\n  agent: *a\n"), ["yaml-alias"]);
    assert_eq!(docker(&(service("") + "include: [other.yml]\n")), ["unmeasured-file"]);
    assert_eq!(docker(&service("    <<: {privileged: true}\n")), ["yaml-alias"]);
    let nested = "volumes:\n  scratch: {<<: {driver_opts: {type: none, o: bind, device: /}}}\n";
    assert_eq!(docker(&(service("") + nested)), ["yaml-alias"]);
    assert_eq!(docker(&service("    volumes: !override [\"/:/host\"]\n")), ["yaml-alias"]);
    assert_eq!(docker(&service("    privileged: !!bool \"false\"\n")), ["yaml-alias"]);
    assert_eq!(docker(&service("    image: other\n")), ["yaml"], "a key twice");
    assert_eq!(docker(&(service("") + "---\nservices: {}\n")), ["yaml"], "two documents");
    assert_eq!(docker("services: ["), ["yaml"]);
    assert_eq!(docker("just text"), ["yaml"]);
}

#[test]
fn lint_finds_ways_around_the_guard() {
    assert_eq!(docker(&service("    privileged: true\n")), ["privileged"]);
    assert_eq!(docker(&service("    network_mode: host\n")), ["host-namespace"]);
    assert_eq!(docker(&service("    cap_add: [SYS_ADMIN]\n")), ["capabilities"]);
    assert_eq!(docker(&service("    devices: [/dev/kvm]\n")), ["devices"]);
    for mode in ["pid: host", "ipc: host", "userns_mode: host", "network_mode: \"container:x\"", "pid: "] {
        assert_eq!(docker(&service(&format!("    {mode}\n"))), ["host-namespace"], "{mode}");
    }
    for key in
        ["cgroup: host", "uts: host", "cgroup_parent: x", "sysctls: {a: 1}", "device_cgroup_rules: [x]"]
    {
        assert_eq!(docker(&service(&format!("    {key}\n"))), ["service-key"], "{key}");
    }
    for privileged in ["yes", "\"true\"", "1", "on", ""] {
        assert_eq!(
            docker(&service(&format!("    privileged: {privileged}\n"))),
            ["privileged"],
            "{privileged}"
        );
    }
    assert_eq!(docker(&service("    security_opt: [\"seccomp:unconfined\"]\n")), ["security-opt"]);
    for mount in [
        "/:/host",
        "./data:/data",
        "~/x:/x",
        "../x:/x",
        "/var/run/docker.sock:/var/run/docker.sock",
        ".:/x",
        "/etc",
        "\"/var/run/dstack.sock/../..:/x\"",
        "\"C:\\\\x:/x\"",
        "\"a:b\"",
        "{type: bind, source: data, target: /d}",
        "{type: volume, source: /etc, target: /e}",
        "{source: data, target: /d}",
        "{type: image, source: x, target: /x}",
        "{type: npipe, source: x, target: /x}",
        "{type: bind, target: /x}",
        "[a, b]",
        "7",
    ] {
        assert_eq!(docker(&service(&format!("    volumes:\n      - {mount}\n"))), ["host-mount"], "{mount}");
    }
    assert_eq!(
        docker(&service("    volumes:\n      - {type: bind, source: /etc, target: /e}\n")),
        ["host-mount"]
    );
    for fine in [
        "/var/run/dstack.sock:/var/run/dstack.sock",
        "scratch:/scratch",
        "scratch:/scratch:ro",
        "{type: tmpfs, target: /t}",
        "{type: volume, source: scratch, target: /s}",
        "{type: bind, source: /var/run/dstack.sock, target: /var/run/dstack.sock}",
    ] {
        assert_eq!(docker(&service(&format!("    volumes:\n      - {fine}\n"))), [""; 0], "{fine}");
    }
    assert_eq!(docker(&service("    volumes: {a: /etc}\n")), ["host-mount"]);
    // A second container with the guest agent's socket could ask for the agent's keys.
    let socket = "    volumes: [\"/var/run/dstack.sock:/s\"]\n";
    let image = format!("    image: other/image@sha256:{}\n", "cd".repeat(32));
    let beside = |volumes: &str| service(socket) + "  other:\n" + &image + volumes;
    assert_eq!(docker(&beside("")), [""; 0]);
    assert_eq!(docker(&beside(socket)), ["shared-socket"]);
    let long = "    volumes:\n      - {type: bind, source: /var/run/tappd.sock, target: /s}\n";
    assert_eq!(docker(&beside(long)), ["shared-socket"]);
    let bind = "volumes:\n  scratch:\n    driver_opts: {type: none, o: bind, device: /etc}\n";
    assert_eq!(docker(&(service("") + bind)), ["host-mount"]);
    for volume in ["{external: true}", "{driver: local}", "{name: x, external: false}", "text", "[]"] {
        let file = service("") + &format!("volumes:\n  scratch: {volume}\n");
        assert_eq!(docker(&file), ["host-mount"], "{volume}");
    }
    for network in
        ["{external: true, name: host}", "{driver: host}", "{name: host}", "{driver_opts: {a: b}}", "x"]
    {
        let file = service("    networks: [shared]\n") + &format!("networks:\n  shared: {network}\n");
        assert_eq!(docker(&file), ["host-namespace"], "{network}");
    }
    let plain = "networks:\n  inner: {internal: true}\nvolumes:\n  scratch:\n  state: {}\n";
    assert_eq!(docker(&(service("    networks: [inner]\n") + plain)), [""; 0]);
    for (field, value) in [
        ("key_provider", json!("none")),
        ("key_provider", json!("local")),
        ("local_key_provider_enabled", json!(true)),
    ] {
        assert_eq!(codes(&with(field, value.clone()).unwrap()), ["kms-disabled"], "{field} {value}");
    }
    assert_eq!(codes(&with("pre_launch_script", json!({ "a": 1 })).unwrap()), ["script"]);
    assert_eq!(codes(&with("public_logs", json!(true)).unwrap()), ["public-logs"]);
    assert_eq!(codes(&with("public_sysinfo", json!(true)).unwrap()), ["public-sysinfo"]);
    assert_eq!(codes(&with("kms_enabled", json!(false)).unwrap()), ["kms-disabled"]);
    assert_eq!(codes(&with("allowed_envs", json!(["A"])).unwrap()), ["unmeasured-env"]);
    assert_eq!(codes(&with("pre_launch_script", json!("curl x | sh")).unwrap()), ["script"]);
    assert_eq!(codes(&with("secure_time", json!(false)).unwrap()), ["secure-time"]);
    assert_eq!(codes(&with("cohort", json!({})).unwrap()), ["recipe"]);
    assert!(codes(&with("runner", json!("bash")).unwrap()).contains(&"runner-bash"));
}

#[test]
fn errors_weigh_more_than_warnings_and_come_first() {
    let mut file = study();
    file["public_sysinfo"] = json!(true);
    file["kms_enabled"] = json!(false);
    let findings = AppCompose::parse(&serde_json::to_vec(&file).unwrap()).unwrap().lint();
    let weights: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(weights, [Severity::Error, Severity::Warning]);
    assert!(findings[0].to_string().starts_with("error[kms-disabled] kms_enabled: "));
}

proptest! {
    #[test]
    fn lint_never_panics(text in "[ -~\\n]{1,200}") {
        docker(&text.clone());
        docker(&service(&text));
    }
}

#[test]
fn the_deployment_example_is_whole() {
    let file = include_bytes!("../../../deploy/app-compose.json");
    let compose = AppCompose::parse(file).unwrap();
    let services = compose.field("docker_compose_file").and_then(serde_json::Value::as_str);
    assert_eq!(services, Some(include_str!("../../../deploy/docker-compose.yml")));
    compose.recipe().unwrap();
    let findings: Vec<String> = compose.lint().iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{findings:?}");
}
