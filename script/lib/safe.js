// Files for Safe's transaction builder (app.safe.global, "Transaction Builder", import): a batch that the owners of a Safe
// review and sign there. Version 1.0 of that format.
"use strict";
const { keccak256 } = require("js-sha3");

const BUILDER_VERSION = "1.18.2";

/// The builder's own serialisation for the checksum: keys sorted, first the list of them, then each value and a comma.
function serialise(value) {
  if (Array.isArray(value)) return `[${value.map(serialise).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const keys = Object.keys(value).sort();
  return `{${JSON.stringify(keys)}${keys.map((key) => `${serialise(value[key])},`).join("")}}`;
}

/// Over the batch without its checksum and with no name, because people rename batches.
function checksum(batch) {
  const { checksum: _former, ...meta } = batch.meta;
  return `0x${keccak256(serialise({ ...batch, meta: { ...meta, name: null } }))}`;
}

/// The builder wants every value as text; arrays and tuples as JSON in text.
const inputText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/// `calls`: {to, value (decimal wei), data, abi (the function's ABI entry), values (its decoded arguments)}.
function batch({ chainId, safe, name, description, createdAt, calls }) {
  const file = {
    version: "1.0",
    chainId: String(chainId),
    createdAt,
    meta: {
      name,
      description,
      txBuilderVersion: BUILDER_VERSION,
      createdFromSafeAddress: safe,
      createdFromOwnerAddress: "",
    },
    transactions: calls.map(({ to, value, data, abi, values }) => ({
      to,
      value,
      data,
      contractMethod: { inputs: abi.inputs, name: abi.name, payable: abi.stateMutability === "payable" },
      contractInputsValues: Object.fromEntries(abi.inputs.map((input, i) => [input.name, inputText(values[i])])),
    })),
  };
  file.meta.checksum = checksum(file);
  return file;
}

module.exports = { batch, checksum };
