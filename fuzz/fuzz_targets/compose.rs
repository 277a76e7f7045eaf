//! Any bytes as an app-compose file and its recipe: refused or read, never a panic.
#![no_main]

use cohort_protocol::compose::AppCompose;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(compose) = AppCompose::parse(data) {
        let _ = (compose.compose_hash(), compose.recipe().map(|recipe| recipe.owners().len()));
    }
});
