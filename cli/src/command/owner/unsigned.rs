//! A transaction for a signer without a network: what it signs, and what comes back.

use std::path::Path;

use alloy::{
    consensus::{SignableTransaction, Transaction, TxEnvelope, transaction::SignerRecoverable},
    eips::eip2718::Decodable2718,
    network::{NetworkTransactionBuilder, TransactionBuilder},
    primitives::{Address, Bytes},
    providers::Provider,
    rpc::types::TransactionReceipt,
};
use serde_json::json;

use super::delivery;
use crate::{
    chain::{self, App},
    config::Settings,
    failure::{self, Failure, Outcome},
    files,
};

/// Writes the EIP-1559 transaction with the account's next nonce and today's fees: its fields, and the bytes to sign.
pub(super) async fn write(
    settings: &Settings,
    app: &App,
    data: Bytes,
    from: Address,
    path: &Path,
) -> Outcome {
    let provider = app.contract.provider();
    let call = app.raw(data.clone()).from(from);
    let gas = call.estimate_gas().await.map_err(failure::contract)?;
    let nonce = provider.get_transaction_count(from).await.map_err(|e| failure::rpc(&e))?;
    let fees = provider.estimate_eip1559_fees().await.map_err(|e| failure::rpc(&e))?;
    let request = call
        .into_transaction_request()
        .with_chain_id(app.chain_id)
        .with_nonce(nonce)
        .with_gas_limit(gas)
        .with_max_fee_per_gas(fees.max_fee_per_gas)
        .with_max_priority_fee_per_gas(fees.max_priority_fee_per_gas);
    let unsigned = request.build_unsigned().map_err(|e| Failure::input(e, "report this"))?;
    let document = json!({
        "format": "cohort-transaction/1",
        "from": from,
        "to": app.address(),
        "chain_id": app.chain_id,
        "nonce": nonce,
        "gas": gas,
        "max_fee_per_gas": fees.max_fee_per_gas.to_string(),
        "max_priority_fee_per_gas": fees.max_priority_fee_per_gas.to_string(),
        "value": "0",
        "data": data,
        "unsigned": Bytes::from(unsigned.encoded_for_signing()),
    });
    files::write_json(path, &document)?;
    if settings.json {
        println!("{}", json!({ "from": from, "nonce": nonce, "file": path.display().to_string() }));
    } else {
        println!("transaction to be signed by {from}, nonce {nonce} -> {}", path.display());
        println!("then: the same command with --import SIGNED_TRANSACTION");
    }
    Ok(())
}

/// Submits a signed transaction, once it is seen to be exactly this call by this account.
pub(super) async fn submit(
    app: &App,
    data: &Bytes,
    from: Address,
    signed: &str,
) -> Outcome<TransactionReceipt> {
    let raw = delivery::read_hex(signed, "the signed transaction")?;
    let bad =
        |why: String| Failure::input(why, "sign the transaction of --export, with the same arguments here");
    let envelope = TxEnvelope::decode_2718_exact(&raw)
        .map_err(|e| bad(format!("this is no signed transaction: {e}")))?;
    let signer = envelope.recover_signer().map_err(|e| bad(format!("its signature is not usable: {e}")))?;
    if signer != from {
        return Err(bad(format!("it is signed by {signer}, not by {from}")));
    }
    let same = envelope.chain_id() == Some(app.chain_id)
        && envelope.to() == Some(app.address())
        && envelope.input() == data
        && envelope.value().is_zero();
    if !same {
        return Err(bad("it is another transaction than this command's".to_owned()));
    }
    let pending = app.contract.provider().send_raw_transaction(&raw).await.map_err(|e| failure::rpc(&e))?;
    chain::mined(pending, "reject").await
}
