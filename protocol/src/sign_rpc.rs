//! sign_rpc
