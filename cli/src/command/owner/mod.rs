//! An owner's word: `cohort approve`, `reject`, `revoke`, by transaction or by signature, and `cohort relay`.

mod approve;
mod confirm;
mod delivery;
mod file;
mod reject;
mod relay;
mod review;
mod revoke;
mod unsigned;
mod word;

pub use approve::{ApproveArgs, approve};
pub use reject::{RejectArgs, reject};
pub use relay::{RelayArgs, relay};
pub use revoke::{RevokeArgs, revoke};
