//! What makes an app-compose file unfit to be signed.

use std::fmt;

use yaml_rust2::{
    Yaml, YamlLoader,
    parser::{Event, EventReceiver, Parser},
};

use super::{AppCompose, Runner};
use crate::recipe::Recipe;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing before signing.
    Warning,
    /// The hash does not pin what runs, or rows could leave around the guard: must not be signed.
    Error,
}

/// One thing found, with a stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Weight.
    pub severity: Severity,
    /// Stable code, e.g. `mutable-image`; docs/spec/compose.md lists them.
    pub code: &'static str,
    /// Where: a field, or a service of the docker-compose file and its key.
    pub at: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{word}[{}] {}: {}", self.code, self.at, self.message)
    }
}

/// The only host paths that a service may see: dstack's guest agent.
const SOCKETS: [&str; 2] = ["/var/run/dstack.sock", "/var/run/tappd.sock"];

/// Service keys that reach outside the measured file or the container, with what to do instead.
const FORBIDDEN: [(&str, &str, &str); 11] = [
    (
        "build",
        "build",
        "builds at boot from unmeasured files; publish the image and name it by @sha256 digest",
    ),
    ("extends", "extends", "pulls in a service that the hash does not cover; write it out"),
    ("env_file", "env-file", "reads unmeasured values; put parameters into the recipe"),
    ("devices", "devices", "hands a host device to the container; remove it"),
    ("cap_add", "capabilities", "adds kernel capabilities; remove it"),
    ("security_opt", "security-opt", "changes the container's confinement; remove it"),
    ("pid", "host-namespace", "shares a process namespace; remove it"),
    ("ipc", "host-namespace", "shares an IPC namespace; remove it"),
    ("network_mode", "host-namespace", "shares a network namespace; remove it"),
    ("userns_mode", "host-namespace", "changes the user namespace; remove it"),
    ("volumes_from", "volumes-from", "mounts what the hash does not name; list the volumes"),
];

/// Service keys that reach nothing but the container itself. What is in neither list is refused: it may be newer
/// than this program.
const ALLOWED: [&str; 29] = [
    "command",
    "container_name",
    "cpus",
    "cap_drop",
    "depends_on",
    "deploy",
    "entrypoint",
    "environment",
    "expose",
    "gpus",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "labels",
    "mem_limit",
    "networks",
    "ports",
    "privileged",
    "read_only",
    "restart",
    "runtime",
    "shm_size",
    "stop_grace_period",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];

/// What declared volumes and networks may say of themselves, with the finding if they say more.
const RESOURCES: [(&str, &[&str], &str, &str); 2] = [
    (
        "volumes",
        &["labels", "name"],
        "host-mount",
        "an external volume, or one with a driver, can be a folder of the host; declare it as {}",
    ),
    (
        "networks",
        &["internal", "labels"],
        "host-namespace",
        "an external network, or one with a driver or name, can be the host's; declare it as {}",
    ),
];

/// Words that begin a download at start: what they bring is in no hash.
const DOWNLOADS: [&str; 12] = [
    "curl",
    "wget",
    "git clone",
    "git pull",
    "pip install",
    "pip3 install",
    "npm install",
    "npx",
    "apt-get install",
    "apk add",
    "cargo install",
    "go install",
];

/// Top-level keys of a docker-compose file that name nothing outside it.
const SECTIONS: [&str; 5] = ["name", "networks", "services", "version", "volumes"];

pub(super) fn lint(compose: &AppCompose) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    findings.fields(compose);
    findings.docker_compose(compose);
    match compose.recipe() {
        Ok(recipe) => findings.recipe(&recipe),
        Err(error) => findings.error("recipe", "cohort", error.to_string()),
    }
    findings.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.0.push(Finding { severity, code, at: at.into(), message: message.into() });
    }

    fn error(&mut self, code: &'static str, at: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, code, at, message);
    }

    fn fields(&mut self, compose: &AppCompose) {
        let is =
            |name: &str, value: bool| compose.field(name).and_then(|field| field.as_bool()) == Some(value);
        let filled = |name: &str| {
            let field = compose.field(name);
            field.is_some_and(|field| match field {
                serde_json::Value::Null => false,
                serde_json::Value::String(text) => !text.trim().is_empty(),
                serde_json::Value::Array(items) => !items.is_empty(),
                _ => true,
            })
        };
        if is("public_logs", true) {
            self.error(
                "public-logs",
                "public_logs",
                "anyone could read the containers' logs; set it to false",
            );
        }
        if is("public_sysinfo", true) {
            self.add(
                Severity::Warning,
                "public-sysinfo",
                "public_sysinfo",
                "load of the CVM is public; set it to false",
            );
        }
        if !is("kms_enabled", true) {
            self.error(
                "kms-disabled",
                "kms_enabled",
                "without it dstack gives the app no keys; set it to true",
            );
        }
        let provider = compose.field("key_provider").and_then(|provider| provider.as_str());
        if provider.is_some_and(|provider| provider != "kms") || is("local_key_provider_enabled", true) {
            self.error(
                "kms-disabled",
                "key_provider",
                "keys would come from the machine itself; leave it out or set it to kms",
            );
        }
        if is("secure_time", false) {
            self.add(
                Severity::Warning,
                "secure-time",
                "secure_time",
                "the clock is the host's; leave it out or set true",
            );
        }
        if filled("allowed_envs") {
            self.error(
                "unmeasured-env",
                "allowed_envs",
                "the host could set these values; put parameters into the recipe",
            );
        }
        if compose.runner() == Runner::Bash {
            self.error("runner-bash", "runner", "runs a script on the CVM itself; use docker-compose");
        }
        for script in ["pre_launch_script", "init_script"] {
            if filled(script) {
                self.error("script", script, "runs before the containers with all rights; remove it");
            }
        }
    }

    fn docker_compose(&mut self, compose: &AppCompose) {
        let Some(text) = compose.docker_compose_file() else { return };
        let at = "docker_compose_file";
        if needs_expansion(text) {
            return self.error(
                "yaml-alias",
                at,
                "has a YAML alias, tag or merge key, which readers expand differently; write it out",
            );
        }
        // dstack interpolates from the environment, which is not measured; $$ is a plain dollar sign.
        if text.replace("$$", "").contains('$') {
            self.error("unmeasured-env", at, "takes ${...} from the environment; write the value");
        }
        let documents = YamlLoader::load_from_str(text).unwrap_or_default();
        let file = documents.first().filter(|_| documents.len() == 1);
        let (Some(file), Some(services)) = (file, file.and_then(|file| map(file, "services"))) else {
            return self.error("yaml", at, "is not one YAML document with services");
        };
        for key in file.as_hash().into_iter().flat_map(|file| file.keys()).filter_map(unlisted(&SECTIONS)) {
            self.error(
                "unmeasured-file",
                format!("{at}: {key}"),
                "may read files the hash does not cover; remove it",
            );
        }
        for (section, allowed, code, message) in RESOURCES {
            if !is_plain(&file[section], allowed) {
                self.error(code, format!("{at}: {section}"), message);
            }
        }
        for (name, service) in services {
            self.service(name.as_str().unwrap_or("?"), service);
        }
        let with_socket = services.values().filter(|service| has_socket(service)).count();
        if with_socket > 1 {
            let message =
                "is mounted by more than one service: each could ask for the agent's keys; leave it to one";
            self.error("shared-socket", format!("{at}: the guest agent's socket"), message);
        }
    }

    fn service(&mut self, name: &str, service: &Yaml) {
        match service["image"].as_str() {
            Some(image) if is_pinned(image) => {}
            Some(image) => self.error(
                "mutable-image",
                format!("service {name}: image"),
                format!("{image:?} can change after signing; name it by @sha256:<64 hex digits>"),
            ),
            None => {
                self.error("no-image", format!("service {name}"), "has no image; name one by @sha256 digest")
            }
        }
        for (key, code, message) in FORBIDDEN {
            if !service[key].is_badvalue() {
                self.error(code, format!("service {name}: {key}"), message);
            }
        }
        if !matches!(service["privileged"], Yaml::BadValue | Yaml::Boolean(false)) {
            self.error(
                "privileged",
                format!("service {name}: privileged"),
                "has all rights over the CVM; remove it",
            );
        }
        let forbidden = FORBIDDEN.map(|(key, ..)| key);
        let keys = service.as_hash().into_iter().flat_map(|service| service.keys());
        for key in keys.filter_map(unlisted(&ALLOWED)).filter(|key| !forbidden.contains(key)) {
            self.error(
                "service-key",
                format!("service {name}: {key}"),
                "is not known to be harmless; remove it",
            );
        }
        for key in ["command", "entrypoint"] {
            if let Some(word) = download(&service[key]) {
                let message =
                    format!("{word:?} brings code that the hash does not cover; build it into the image");
                self.error("unpinned-code", format!("service {name}: {key}"), message);
            }
        }
        if takes_host_environment(&service["environment"]) {
            let message = "names a variable without a value, which the host then gives; write the value";
            self.error("unmeasured-env", format!("service {name}: environment"), message);
        }
        let volumes = match &service["volumes"] {
            Yaml::Array(volumes) => volumes.as_slice(),
            Yaml::BadValue => &[],
            other => std::slice::from_ref(other),
        };
        for volume in volumes {
            if let Some(path) = host_path(volume) {
                let message =
                    format!("mounts {path:?} of the host; only the guest agent's socket is allowed");
                self.error("host-mount", format!("service {name}: volumes"), message);
            }
        }
    }

    fn recipe(&mut self, recipe: &Recipe) {
        if *recipe.output_schema() != recipe.derived_output_schema() {
            let message = "differs from the schema that the measures have; the stricter of both applies";
            self.add(Severity::Warning, "output-schema", "cohort.output_schema", message);
        }
    }
}

fn map<'a>(node: &'a Yaml, key: &str) -> Option<&'a yaml_rust2::yaml::Hash> {
    node[key].as_hash()
}

/// Does the service mount the guest agent's socket?
fn has_socket(service: &Yaml) -> bool {
    let source = |volume: &Yaml| match volume {
        Yaml::String(text) => text.split(':').next().map(str::to_owned),
        other => other["source"].as_str().map(str::to_owned),
    };
    let volumes = service["volumes"].as_vec().into_iter().flatten();
    volumes.filter_map(source).any(|source| SOCKETS.contains(&source.as_str()))
}

/// A key's text if it is not in the list; `?` for a key that is no text.
fn unlisted<'a>(list: &'a [&str]) -> impl Fn(&'a Yaml) -> Option<&'a str> {
    |key| {
        let key = key.as_str().unwrap_or("?");
        (!list.contains(&key)).then_some(key)
    }
}

/// Whether a section is absent, or a map of names to nothing or to maps with only these keys.
fn is_plain(section: &Yaml, allowed: &[&str]) -> bool {
    let plain = |entry: &Yaml| match entry {
        Yaml::Null => true,
        Yaml::Hash(keys) => keys.keys().filter_map(unlisted(allowed)).next().is_none(),
        _ => false,
    };
    match section {
        Yaml::BadValue | Yaml::Null => true,
        Yaml::Hash(entries) => entries.values().all(plain),
        _ => false,
    }
}

/// The word with which a command, a text or a list of texts, downloads something.
fn download(command: &Yaml) -> Option<&'static str> {
    let text = match command {
        Yaml::Array(words) => words.iter().filter_map(Yaml::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'))
        .filter(|w| !w.is_empty())
        .collect();
    let text = format!(" {} ", words.join(" "));
    DOWNLOADS.into_iter().find(|download| text.contains(&format!(" {download} ")))
}

/// Whether an image reference ends in a full SHA-256 digest.
fn is_pinned(image: &str) -> bool {
    let hex =
        |digest: &str| digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    image.split_once("@sha256:").is_some_and(|(name, digest)| !name.is_empty() && hex(digest))
}

/// Whether `environment`, a list or a map, has a variable without a value.
fn takes_host_environment(environment: &Yaml) -> bool {
    match environment {
        Yaml::BadValue => false,
        Yaml::Array(items) => items.iter().any(|item| !item.as_str().is_some_and(|item| item.contains('='))),
        Yaml::Hash(items) => items
            .values()
            .any(|value| matches!(value, Yaml::Null | Yaml::BadValue | Yaml::Hash(_) | Yaml::Array(_))),
        _ => true,
    }
}

/// The host path of a mount that is not allowed. A mount that cannot be read counts as one.
fn host_path(volume: &Yaml) -> Option<String> {
    let (source, bind) = match volume {
        Yaml::String(text) => {
            let (source, target) = text.split_once(':').unwrap_or((text, ""));
            // Anything else than an absolute path behind the name is read differently, by some as a drive letter.
            (if target.starts_with('/') { source } else { text.as_str() }, source.starts_with('/'))
        }
        Yaml::Hash(_) => {
            let source = volume["source"].as_str().unwrap_or("?");
            match volume["type"].as_str() {
                Some("tmpfs") => return None,
                Some("volume") => (source, false),
                // A path, also where it looks like a name.
                Some("bind") => (source, true),
                _ => return Some(source.to_owned()),
            }
        }
        _ => return Some("?".to_owned()),
    };
    let allowed = if bind { SOCKETS.contains(&source) } else { is_volume_name(source) };
    (!allowed).then(|| source.to_owned())
}

fn is_volume_name(source: &str) -> bool {
    source.starts_with(|c: char| c.is_ascii_alphanumeric())
        && source.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Looks for aliases, tags and merge keys in the event stream, before anything is expanded: nested aliases grow
/// exponentially.
fn needs_expansion(text: &str) -> bool {
    struct Expansions(bool);
    impl EventReceiver for Expansions {
        fn on_event(&mut self, event: Event) {
            self.0 |= match event {
                Event::Alias(_) => true,
                Event::Scalar(value, _, _, tag) => tag.is_some() || value == "<<",
                Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => tag.is_some(),
                _ => false,
            };
        }
    }
    let mut expansions = Expansions(false);
    // A text that does not scan is reported when it is loaded; what was seen before counts all the same.
    let _ = Parser::new_from_str(text).load(&mut expansions, true);
    expansions.0
}
