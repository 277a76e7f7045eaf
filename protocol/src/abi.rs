//! The contracts' ABI, read from the Solidity interfaces themselves.
//!
//! `IDstackApp.sol` and `IDstackKms.sol` import nothing so that this macro and solc read the same text.

#![allow(missing_docs, clippy::all, unreachable_pub)]

alloy::sol!(
    #[sol(rpc, all_derives)]
    "../contracts/IDstackApp.sol"
);

alloy::sol!(
    #[sol(rpc, all_derives)]
    "../contracts/IDstackKms.sol"
);

/// dstack's boot gate, as `DstackKms` answers it (dstack kms/auth-eth DstackKms.sol): may a virtual machine with this
/// boot information run as a KMS, or as an app?
pub mod boot {
    alloy::sol!(
        #[sol(all_derives)]
        interface IDstackBoot {
            struct AppBootInfo {
                address appId;
                bytes32 composeHash;
                address instanceId;
                bytes32 deviceId;
                bytes32 mrAggregated;
                bytes32 mrSystem;
                bytes32 osImageHash;
                string tcbStatus;
                string[] advisoryIds;
            }
            function isKmsAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason);
            function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason);
        }
    );
    pub use IDstackBoot::{AppBootInfo, isAppAllowedCall, isKmsAllowedCall};

    #[cfg(test)]
    mod tests {
        use alloy::sol_types::SolCall as _;

        /// The selectors that dstack's own contracts have.
        #[test]
        fn selectors_are_dstacks() {
            assert_eq!(super::isAppAllowedCall::SELECTOR, [0x1e, 0x07, 0x91, 0x98]);
            assert_eq!(super::isKmsAllowedCall::SELECTOR, [0xe0, 0x67, 0xec, 0x9d]);
        }
    }
}
