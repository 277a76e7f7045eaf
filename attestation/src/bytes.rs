//! Fixed-length values that evidence carries, each with its own type so that two cannot be swapped.
//!
//! All of them print, and travel in JSON, as lowercase hex without a prefix, which is how dstack
//! writes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes exactly [`Self::LEN`] bytes, or nothing.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let mut bytes = [0u8; $len];
                hex::decode_to_slice(&text, &mut bytes).map_err(D::Error::custom)?;
                Ok(Self(bytes))
            }
        }
    };
}

fixed_bytes!(
    /// dstack app id: the address of the app's contract, or the start of its compose hash.
    AppId,
    20
);
fixed_bytes!(
    /// dstack instance id: one disk of one app.
    InstanceId,
    20
);
fixed_bytes!(
    /// dstack device id: SHA-256 of the machine's PPID from its PCK certificate.
    DeviceId,
    32
);
fixed_bytes!(
    /// dstack `mr_system`: the virtual machine's firmware, kernel and key provider, not its app.
    MrSystem,
    32
);
fixed_bytes!(
    /// dstack `mr_aggregated`: every measurement register of the virtual machine.
    MrAggregated,
    32
);
fixed_bytes!(
    /// Hash of the dstack operating system image.
    OsImageHash,
    32
);
fixed_bytes!(
    /// A TDX measurement register (MRTD, RTMR0 to RTMR3), a SHA-384 value.
    Register,
    48
);

impl Register {
    /// The value of a run-time register before anything is extended into it.
    pub const ZERO: Self = Self([0; 48]);
}
