//! What a command ends with when it does not succeed: words, a hint, and a documented exit code.

use std::fmt;

use alloy::contract::Error as ContractError;
use cohort_protocol::{release::Refusal, revert, text};

/// Exit codes (docs/cli.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The contract, the KMS or the agent refused, or a check failed.
    Refused = 1,
    /// Input that cannot be used: arguments, files, configuration.
    Input = 2,
    /// A service or endpoint does not answer; trying again may help.
    Unreachable = 3,
    /// Nothing failed, but what was given does not suffice for the verdict that was asked for.
    Incomplete = 4,
}

/// One failure.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What went wrong, naming the thing.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Bad input.
    pub fn input(message: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Input, message: message.to_string(), hint: Some(hint.into()) }
    }

    /// A refusal or a failed check.
    pub fn refused(message: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, message: message.to_string(), hint: Some(hint.into()) }
    }

    /// Nothing failed, and yet it is not established.
    pub fn incomplete(message: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Incomplete, message: message.to_string(), hint: Some(hint.into()) }
    }

    /// Something does not answer.
    pub fn unreachable(message: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.to_string(), hint: Some(hint.into()) }
    }

    /// Whose failure it is, where one of several does not answer.
    pub fn of(self, name: &str) -> Self {
        match self.exit {
            Exit::Unreachable => Self { message: format!("{name}: {}", self.message), ..self },
            _ => self,
        }
    }

    /// Cannot read a file.
    pub fn read(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::input(format!("cannot read {}: {error}", path.display()), "check the path and its permissions")
    }

    /// Cannot write a file.
    pub fn write(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::input(
            format!("cannot write {}: {error}", path.display()),
            "check the folder, its permissions and free space",
        )
    }
}

/// As it is printed: one line each, whatever file, chain or network said.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", text::line(&self.message))?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {}", text::line(hint)))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            exit: Exit::Refused,
            message: format!("{} ({})", refusal.message, refusal.code),
            hint: refusal.hint,
        }
    }
}

/// Turns an RPC error into the contract's reason, into "is no contract of ours", or into "does not answer".
pub fn contract(error: ContractError) -> Failure {
    match (revert::decode(&error), &error) {
        (Some(refusal), _) => refusal.into(),
        (None, ContractError::ZeroData(..) | ContractError::AbiError(_)) => Failure::input(
            format!("the contract answers as no DstackApp or DstackKms of this version does: {error}"),
            "check --app, --registry and --rpc-url, and use the version of cohort that fits the contract",
        ),
        (None, _) => rpc(&error),
    }
}

/// An endpoint that does not answer as it should.
pub fn rpc(error: &dyn fmt::Display) -> Failure {
    Failure::unreachable(
        format!("the RPC endpoint does not answer as expected: {}", revert::without_urls(&error.to_string())),
        "check --rpc-url, and that --app is a DstackApp on that chain",
    )
}
