//! OpenAPI schemas of values whose types live elsewhere, and of event arguments.

use std::borrow::Cow;

use alloy::primitives::{Address as EvmAddress, B256, Bytes};
use cohort_protocol::{
    ids::{ComposeHash, DatasetId, ProposalId, RunId},
    loss::Epsilon as Loss,
    terms::Terms as ProposalTerms,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, SchemaType, Type},
    },
};

use crate::{
    event::{DatasetInfo, Receipt},
    store::Cursor as EventCursor,
    value::{Delta as Failure, Jurisdiction as Country, Name, OwnerSet},
};

macro_rules! texts {
    ($($(#[doc = $doc:literal])* $name:ident ~ $pattern:literal;)*) => {
        $($(#[doc = $doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
                text.pattern(Some($pattern)).description(Some(concat!($($doc),*).trim())).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        })*
    };
}

texts! {
    /// 32 bytes as lower-case hex.
    Hash ~ "^0x[0-9a-f]{64}$";
    /// A contract or account, 20 bytes as lower-case hex.
    Address ~ "^0x[0-9a-f]{40}$";
    /// Bytes as lower-case hex.
    HexBytes ~ "^0x([0-9a-f]{2})*$";
    /// A public name of at most 31 characters; where a contract put something else into the word, its 32 bytes as hex.
    Label ~ "^([A-Za-z0-9._-]{1,31}|0x[0-9a-f]{64})$";
    /// ISO 3166-1 alpha-2 code; where a contract put something else there, its two bytes as hex.
    Jurisdiction ~ "^([A-Z]{2}|0x[0-9a-f]{4})$";
    /// Privacy loss, a decimal with at most nine places.
    Epsilon ~ "^[0-9]+(\\.[0-9]{1,9})?$";
    /// Failure probability in units of 1e-18, a decimal integer.
    Delta ~ "^[0-9]+$";
    /// Place in the order of events: `block:log_index`.
    Cursor ~ "^[0-9]+:[0-9]+$";
    /// Where a page ended: `block:log_index@block_hash`. Without the hash, on whatever chain there is.
    Bookmark ~ "^[0-9]+:[0-9]+(@0x[0-9a-f]{64})?$";
    /// Place in the stream of `/v1/events`: `block:log_index@block_hash`, or `start`.
    StreamId ~ "^(start|[0-9]+(:[0-9]+(/[0-9]+:[0-9]+)?)?@0x[0-9a-f]{64})$";
}

/// One block.
#[derive(Debug, ToSchema)]
#[allow(dead_code)] // `cohort_protocol::chain::Position` is what is serialized
pub struct Position {
    /// Block number.
    #[schema(minimum = 0)]
    number: u64,
    /// Block hash.
    #[schema(value_type = Hash)]
    hash: (),
    /// Block timestamp, Unix seconds.
    timestamp: u64,
}

/// Why a dataset key may or may not be released: `enum Decision` of the contract.
#[derive(Debug)]
pub enum Decision {}

impl PartialSchema for Decision {
    fn schema() -> RefOr<Schema> {
        let codes = cohort_protocol::decision::Decision::ALL.iter().map(|decision| decision.code());
        let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(codes));
        text.description(Some(
            "Why a dataset key may or may not be released: `enum Decision` of the contract.",
        ))
        .into()
    }
}

impl ToSchema for Decision {
    fn name() -> Cow<'static, str> {
        "Decision".into()
    }
}

/// A release decision and the block it holds at.
#[derive(Debug, ToSchema)]
#[allow(dead_code)] // `cohort_protocol::chain::DecisionAt` is what is serialized
pub struct DecisionAt {
    /// Where.
    position: Position,
    /// What the facts up to there decide.
    #[schema(value_type = Decision)]
    decision: (),
}

/// The release decision at the two positions that count: approvals must have aged to `confirmed`, revocations count at
/// `head`.
#[derive(Debug, ToSchema)]
#[allow(dead_code)] // `cohort_protocol::chain::ReleaseDecisions` is what is serialized
pub struct ReleaseDecisions {
    /// EIP-155 chain id.
    chain_id: u64,
    /// At the newest mirrored block.
    head: DecisionAt,
    /// At the confirmed depth.
    confirmed: DecisionAt,
    /// At the newest mirrored block that the chain calls finalized, if an endpoint tells; no release depends on it.
    finalized: Option<DecisionAt>,
}

/// A refusal.
#[derive(Debug, ToSchema)]
#[allow(dead_code)] // `cohort_protocol::release::Refusal` is what is serialized
pub struct Refusal {
    /// Stable code.
    #[schema(example = "app_unknown")]
    code: String,
    /// What is wrong.
    message: String,
    /// What to do about it.
    hint: Option<String>,
}

/// The JSON form of a type.
pub(crate) trait Shape {
    /// Its schema.
    fn shape() -> RefOr<Schema>;
}

macro_rules! named {
    ($($type:ty => $name:literal,)*) => {
        $(impl Shape for $type {
            fn shape() -> RefOr<Schema> {
                Ref::from_schema_name($name).into()
            }
        })*
    };
}

named! {
    B256 => "Hash",
    ProposalId => "Hash",
    ComposeHash => "Hash",
    DatasetId => "Hash",
    RunId => "Hash",
    EvmAddress => "Address",
    Bytes => "HexBytes",
    Name => "Label",
    Country => "Jurisdiction",
    Loss => "Epsilon",
    Failure => "Delta",
    EventCursor => "Cursor",
    ProposalTerms => "Terms",
    DatasetInfo => "DatasetInfo",
    Receipt => "Receipt",
}

macro_rules! plain {
    ($($type:ty,)*) => {
        $(impl Shape for $type {
            fn shape() -> RefOr<Schema> {
                <$type as PartialSchema>::schema()
            }
        })*
    };
}

plain! { bool, String, u8, u16, u32, u64, }

impl Shape for OwnerSet {
    fn shape() -> RefOr<Schema> {
        ArrayBuilder::new().items(u8::shape()).description(Some("Ascending owner indexes.")).into()
    }
}

impl<T: Shape> Shape for Option<T> {
    fn shape() -> RefOr<Schema> {
        let null = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
        OneOfBuilder::new().item(null).item(T::shape()).into()
    }
}

/// `{"kind": ..., "args": {...}}` of one event.
pub(crate) fn event(kind: &str, args: &[(&str, RefOr<Schema>)]) -> Schema {
    let tag = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some([kind]));
    let mut object = ObjectBuilder::new();
    for (name, schema) in args {
        object = object.property(*name, schema.clone()).required(*name);
    }
    let event = ObjectBuilder::new().title(Some(kind)).property("kind", tag).property("args", object);
    event.required("kind").required("args").into()
}
