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
