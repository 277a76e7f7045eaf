//! Evidence about a confidential virtual machine in, verified claims or a reason for refusal out.
//!
//! The crate decides and does nothing else: no network, no files, no clock (`now` is an argument).
//! The way in is [`verify`]; `docs/spec/attestation.md` says what it checks and why. It leaves to its
//! callers what the report data must be, whether the measured app, image and device are allowed, and
//! where collateral comes from.
//!
//! Under the feature `dev-platform` the module `dev` makes evidence of a development platform, which
//! goes through the same verifier under its own root.

pub mod boot;
pub mod bytes;
pub mod collateral;
#[cfg(feature = "dev-platform")]
pub mod dev;
mod diagnosis;
pub mod dstack;
pub mod event_log;
pub mod evidence;
pub mod gpu;
pub mod kms;
pub mod policy;
pub mod refusal;
mod signatures;
pub mod tdx;
mod verified;

pub use bytes::{AppId, DeviceId, InstanceId, MrAggregated, MrSystem, OsImageHash, Register};
pub use collateral::Collateral;
pub use dcap_qvl::TcbStatus;
pub use evidence::{Evidence, GuestEvidence};
pub use kms::{KmsEvidence, KmsRefusal, VerifiedKms};
pub use policy::{Platform, Policy, TrustedRoot};
pub use refusal::Refusal;
pub use tdx::{verify, verify_quote};
pub use verified::VerifiedTd;
