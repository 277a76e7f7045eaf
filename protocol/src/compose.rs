//! `app-compose.json` as dstack measures it, with the recipe inside (docs/spec/compose.md).
//!
//! The compose hash is over the exact bytes: nothing here re-serialises the file, and the parsed view is for
//! reading only.

mod lint;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

use crate::{
    ids::ComposeHash,
    json::{self, sha256},
    recipe::{Recipe, RecipeError},
};

pub use lint::{Finding, Severity};

/// Largest file that dstack reads, in bytes.
pub const MAX_COMPOSE_BYTES: usize = 256 * 1024;

/// Key of the recipe section.
pub const RECIPE_KEY: &str = "cohort";

/// A file that dstack would not accept, or that has no recipe.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Larger than dstack reads.
    #[error("app-compose is {got} bytes, dstack reads at most {limit}")]
    Size {
        /// Bytes of the file.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or an object has a key twice.
    #[error("app-compose is not JSON without duplicate keys")]
    Json(#[source] serde_json::Error),
    /// Not a JSON object.
    #[error("app-compose must be a JSON object")]
    NotAnObject,
    /// A field that dstack needs is absent.
    #[error("app-compose has no {field:?}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field has a type or value that dstack refuses.
    #[error("app-compose field {field:?} must be {needed}")]
    Field {
        /// The field.
        field: &'static str,
        /// What dstack takes.
        needed: &'static str,
    },
    /// There is no `cohort` section.
    #[error("app-compose has no \"cohort\" section, which holds the recipe")]
    NoRecipe,
    /// The `cohort` section is not a recipe.
    #[error("app-compose section \"cohort\" is refused")]
    Recipe(#[source] RecipeError),
}

/// What starts the application inside the CVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// `docker-compose`
    DockerCompose,
    /// `nerdctl-compose`
    NerdctlCompose,
    /// `bash`: a script in the file itself.
    Bash,
}

/// A parsed app-compose file with its exact bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct AppCompose {
    bytes: Vec<u8>,
    fields: Map<String, Value>,
    name: String,
    runner: Runner,
}

impl fmt::Debug for AppCompose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppCompose({:?}, {})", self.name, self.compose_hash())
    }
}

const FLAGS: [&str; 9] = [
    "public_logs",
    "public_sysinfo",
    "public_tcbinfo",
    "kms_enabled",
    "gateway_enabled",
    "tproxy_enabled",
    "local_key_provider_enabled",
    "no_instance_id",
    "secure_time",
];
const TEXTS: [&str; 4] = ["key_provider_id", "storage_fs", "snapshotter", "docker_compose_file"];
const TEXT_LISTS: [&str; 2] = ["features", "allowed_envs"];
const KEY_PROVIDERS: [&str; 4] = ["none", "kms", "local", "tpm"];

/// SHA-256 of the exact bytes of an app-compose file: the one compose hash of all parts, and dstack's.
pub fn compose_hash(bytes: &[u8]) -> ComposeHash {
    ComposeHash(sha256(bytes))
}

impl AppCompose {
    /// Reads a file as dstack would: size, JSON, the fields it knows; unknown fields are tolerated and hashed.
    ///
    /// Stricter than dstack in one thing: no object may have a key twice, whatever its depth.
    pub fn parse(bytes: &[u8]) -> Result<Self, ComposeError> {
        if bytes.len() > MAX_COMPOSE_BYTES {
            return Err(ComposeError::Size { got: bytes.len(), limit: MAX_COMPOSE_BYTES });
        }
        let value = json::parse_value(bytes).map_err(ComposeError::Json)?;
        let Value::Object(fields) = value else {
            return Err(ComposeError::NotAnObject);
        };
        check_version(&fields)?;
        check_types(&fields)?;
        let name = required_text(&fields, "name")?.to_owned();
        let runner = runner(&fields)?;
        if runner != Runner::Bash {
            required_text(&fields, "docker_compose_file")?;
        }
        Ok(Self { bytes: bytes.to_vec(), fields, name, runner })
    }

    /// The file as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// [`compose_hash`] of the file.
    pub fn compose_hash(&self) -> ComposeHash {
        compose_hash(&self.bytes)
    }

    /// The application's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What starts the application.
    pub const fn runner(&self) -> Runner {
        self.runner
    }

    /// The text of the docker-compose file, where there is one.
    pub fn docker_compose_file(&self) -> Option<&str> {
        self.field("docker_compose_file").and_then(Value::as_str)
    }

    /// A field by name, for display.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// The recipe in the `cohort` section.
    pub fn recipe(&self) -> Result<Recipe, ComposeError> {
        let section = self.field(RECIPE_KEY).ok_or(ComposeError::NoRecipe)?;
        Recipe::parse(section).map_err(ComposeError::Recipe)
    }

    /// Everything that makes the file unfit to be signed, or that a signer should know.
    pub fn lint(&self) -> Vec<Finding> {
        lint::lint(self)
    }
}

fn required_text<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, ComposeError> {
    let value = fields.get(field).ok_or(ComposeError::Missing { field })?;
    let text = value.as_str().filter(|text| !text.is_empty());
    text.ok_or(ComposeError::Field { field, needed: "a text that is not empty" })
}

/// dstack takes the number 1 or 2, or any version as text ("3" for requirements).
fn check_version(fields: &Map<String, Value>) -> Result<(), ComposeError> {
    let field = "manifest_version";
    let accepted = match fields.get(field).ok_or(ComposeError::Missing { field })? {
        Value::Number(number) => matches!(number.as_u64(), Some(1 | 2)),
        Value::String(text) => matches!(text.as_str(), "1" | "2" | "3"),
        _ => false,
    };
    if accepted { Ok(()) } else { Err(ComposeError::Field { field, needed: "1, 2, \"1\", \"2\" or \"3\"" }) }
}

fn runner(fields: &Map<String, Value>) -> Result<Runner, ComposeError> {
    match required_text(fields, "runner")? {
        "docker-compose" => Ok(Runner::DockerCompose),
        "nerdctl-compose" => Ok(Runner::NerdctlCompose),
        "bash" => Ok(Runner::Bash),
        _ => Err(ComposeError::Field {
            field: "runner",
            needed: "\"docker-compose\", \"nerdctl-compose\" or \"bash\"",
        }),
    }
}

fn check_types(fields: &Map<String, Value>) -> Result<(), ComposeError> {
    let check = |names: &[&'static str], fits: fn(&Value) -> bool, needed: &'static str| {
        let wrong = names.iter().find(|name| fields.get(**name).is_some_and(|value| !fits(value)));
        wrong.map_or(Ok(()), |field| Err(ComposeError::Field { field, needed }))
    };
    let text_list = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    check(&FLAGS, Value::is_boolean, "true or false")?;
    check(&TEXTS, |value| value.is_string() || value.is_null(), "a text")?;
    check(&TEXT_LISTS, text_list, "a list of texts")?;
    check(&["event_log_version"], |value| matches!(value.as_u64(), Some(1 | 2)), "1 or 2")?;
    let provider = |value: &Value| value.as_str().is_some_and(|text| KEY_PROVIDERS.contains(&text));
    check(&["key_provider"], provider, "\"none\", \"kms\", \"local\" or \"tpm\"")?;
    let script = |value: &Value| {
        let lines =
            value.as_array().is_some_and(|items| items.len() <= 5 && items.iter().all(Value::is_string));
        value.is_string() || lines
    };
    check(&["init_script"], script, "a text or a list of at most 5 texts")?;
    check(&["requirements", "port_policy"], Value::is_object, "an object")?;
    check(&["verity_volumes"], Value::is_array, "a list")
}
