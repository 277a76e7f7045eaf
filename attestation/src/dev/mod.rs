//! The development platform: TDX evidence in real DCAP structures, under a root of its own.
//!
//! Nothing here lowers a check. A verifier that trusts the development root runs the same code on
//! the same structures as one that trusts Intel's; one that does not, refuses the evidence. What the
//! evidence says is nevertheless worth nothing: whoever has the seed signs what they like, and no
//! memory is protected. So the root's name says `NOT INTEL`, claims made under it say `development`,
//! and the crate feature `dev-platform` is off by default.
//!
//! Everything derives from a 32-byte seed by RFC 6979 signatures: the same seed gives the same root,
//! quotes and, for the same dates, collateral.

mod gpu;
mod guest;
mod keys;
mod pck;
mod pki;
mod platform;
mod published;
mod quote;

pub use gpu::{DRIVER_VERSION, DevGpus, ReportOptions, VBIOS_VERSION};
pub use guest::DevGuest;
pub use keys::{AppKeys, DerivedKey, KeyError};
pub use pck::PckFlags;
pub use platform::DevPlatform;
pub use published::CollateralOptions;
pub use quote::{QuoteVersion, TdMeasurements};

/// Seconds for which [`DevPlatform::collateral`] is valid: 30 days.
pub const COLLATERAL_SECONDS: u64 = 30 * 24 * 3600;

/// A structure of the development platform could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DevPlatformError {
    /// A certificate or a revocation list.
    #[error("cannot issue {what}: {detail}")]
    Issue {
        /// What was to be issued.
        what: &'static str,
        /// What the encoder or signer said.
        detail: String,
    },
    /// A date outside the years that X.509 and RFC 3339 can write.
    #[error("{seconds} is not a Unix time before the year 10000")]
    Date {
        /// The time given.
        seconds: u64,
    },
    /// An event log that the parser would refuse.
    #[error("the boot event {name:?} cannot be measured")]
    Event {
        /// Event name.
        name: &'static str,
    },
}
