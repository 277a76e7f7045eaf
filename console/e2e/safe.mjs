// A Safe, of the bytecode that its makers publish: two keys, both needed.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { concat, createPublicClient, createWalletClient, encodeFunctionData, hashTypedData, http, zeroAddress } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

const require = createRequire(import.meta.url);
const artifact = (path) => require(`@safe-global/safe-smart-account/build/artifacts/contracts/${path}.json`);

const TRANSACTION = [
  ["to", "address"], ["value", "uint256"], ["data", "bytes"], ["operation", "uint8"], ["safeTxGas", "uint256"],
  ["baseGas", "uint256"], ["gasPrice", "uint256"], ["gasToken", "address"], ["refundReceiver", "address"], ["nonce", "uint256"],
].map(([name, type]) => ({ name, type }));

/** Deploys one; `key` pays for it and for its transactions. */
export async function safe(rpc, chainId, key) {
  const transport = http(rpc);
  const chain = { id: chainId, name: "anvil", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [rpc] } } };
  const reader = createPublicClient({ chain, transport, pollingInterval: 100 });
  const payer = createWalletClient({ account: privateKeyToAccount(key), chain, transport });
  const mined = async (hash) => {
    const receipt = await reader.waitForTransactionReceipt({ hash });
    assert.equal(receipt.status, "success");
    return receipt;
  };
  const deploy = async (path, args = []) => {
    const { abi, bytecode } = artifact(path);
    return (await mined(await payer.deployContract({ abi, bytecode, args }))).contractAddress;
  };
  const owners = [generatePrivateKey(), generatePrivateKey()].map((it) => privateKeyToAccount(it));
  const { abi } = artifact("Safe.sol/Safe");
  const handler = await deploy("handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler");
  const address = await deploy("proxies/SafeProxy.sol/SafeProxy", [await deploy("Safe.sol/Safe")]);
  const setup = [owners.map((it) => it.address), 2n, zeroAddress, "0x", handler, zeroAddress, 0n, zeroAddress];
  await mined(await payer.writeContract({ address, abi, functionName: "setup", args: setup }));

  /** Signatures stand in the order of their owners' addresses. */
  const signed = async (typed, count = owners.length) => {
    const sorted = owners.toSorted((a, b) => (BigInt(a.address) < BigInt(b.address) ? -1 : 1));
    const domain = { chainId, verifyingContract: address };
    return concat(await Promise.all(sorted.slice(0, count).map((it) => it.signTypedData({ domain, ...typed }))));
  };
  return {
    account: address.toLowerCase(),
    /** Sends a call from the Safe. */
    async call(to, abiOfCall, functionName, args) {
      const data = encodeFunctionData({ abi: abiOfCall, functionName, args });
      const nonce = await reader.readContract({ address, abi, functionName: "nonce" });
      const message = { to, value: 0n, data, operation: 0, safeTxGas: 0n, baseGas: 0n, gasPrice: 0n, gasToken: zeroAddress, refundReceiver: zeroAddress, nonce };
      const signatures = await signed({ types: { SafeTx: TRANSACTION }, primaryType: "SafeTx", message });
      await mined(await payer.writeContract({ address, abi, functionName: "execTransaction", args: [...TRANSACTION.slice(0, 9).map(({ name }) => message[name]), signatures] }));
    },
    /** What the Safe's owners sign for EIP-1271 (its message format), by `count` of them. */
    signTypedData: (typed, count) =>
      signed({ types: { SafeMessage: [{ name: "message", type: "bytes" }] }, primaryType: "SafeMessage", message: { message: hashTypedData(typed) } }, count),
  };
}
