//! What a recipe requires of GPUs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RecipeError;
use crate::{compose::RECIPE_KEY, json};

/// Most GPUs that a recipe can require.
pub const MAX_GPUS: u32 = 16;

/// Family of a chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuArchitecture {
    /// NVIDIA Hopper: H100, H200, H20.
    Hopper,
}

impl GpuArchitecture {
    /// As in a recipe: `hopper`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hopper => "hopper",
        }
    }
}

impl fmt::Display for GpuArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The GPUs that a recipe requires: keys are released only to a virtual machine that shows evidence of
/// exactly these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuRequirement {
    /// Family of all of them.
    pub architecture: GpuArchitecture,
    /// How many, 1 to [`MAX_GPUS`].
    pub count: u32,
}

impl GpuRequirement {
    pub(crate) fn check(self) -> Result<Self, RecipeError> {
        if (1..=MAX_GPUS).contains(&self.count) {
            Ok(self)
        } else {
            Err(RecipeError::Gpus { got: self.count })
        }
    }
}

/// What the recipe inside an app-compose file requires of GPUs, without reading the rest of the recipe: for
/// whoever releases keys, and need not know every engine. A file without a recipe requires none.
///
/// # Errors
/// The file is not JSON without duplicate keys, or the requirement is none of this format.
pub fn required_gpus(app_compose: &[u8]) -> Result<Option<GpuRequirement>, RecipeError> {
    let file = json::parse_value(app_compose).map_err(RecipeError::Grammar)?;
    let Some(stated) = file.get(RECIPE_KEY).and_then(|recipe| recipe.get("gpu")) else {
        return Ok(None);
    };
    let required = GpuRequirement::deserialize(stated as &Value).map_err(RecipeError::Grammar)?;
    required.check().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requirement_is_read_from_the_file() {
        let read = |gpu: &str| required_gpus(format!(r#"{{"name":"x","cohort":{{{gpu}}}}}"#).as_bytes());
        let one = GpuRequirement { architecture: GpuArchitecture::Hopper, count: 1 };
        assert_eq!(read(r#""gpu":{"architecture":"hopper","count":1}"#).unwrap(), Some(one));
        assert_eq!(read("").unwrap(), None);
        assert_eq!(required_gpus(b"{}").unwrap(), None);
        for refused in [
            r#""gpu":null"#,
            r#""gpu":{"architecture":"hopper","count":0}"#,
            r#""gpu":{"architecture":"hopper","count":17}"#,
            r#""gpu":{"architecture":"ampere","count":1}"#,
            r#""gpu":{"architecture":"hopper"}"#,
            r#""gpu":{"architecture":"hopper","count":1,"optional":true}"#,
            r#""gpu":{"architecture":"hopper","count":1},"gpu":null"#,
        ] {
            assert!(read(refused).is_err(), "{refused}");
        }
        assert!(required_gpus(b"not JSON").is_err());
    }
}
