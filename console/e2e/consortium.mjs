// A consortium of as many owners as a contract takes, on the chain of the stack: its contract, registered, and their keys.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createPublicClient, createWalletClient, hashStruct, http, parseAbi, parseGwei, stringToHex, zeroAddress } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { PROJECT } from "./stack.mjs";

const { abi, bytecode } = JSON.parse(readFileSync(join(PROJECT, "out/DstackApp.sol/DstackApp.json"), "utf8"));
const COUNTRIES = ["US", "HU", "CH", "DE", "FR", "TR", "JP", "SG"];

export async function consortium(study, chainId, name, names, threshold) {
  const chain = { id: chainId, name: "anvil", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [study.rpc] } } };
  const transport = http(study.rpc);
  const reader = createPublicClient({ chain, transport, pollingInterval: 100 });
  const payer = createWalletClient({ account: privateKeyToAccount(study.key("relayer")), chain, transport });
  const mined = (hash) => reader.waitForTransactionReceipt({ hash });
  const keys = names.map(() => privateKeyToAccount(generatePrivateKey()));
  const kmsRoot = await reader.readContract({ address: study.app, abi, functionName: "kmsRoot" });
  const founders = names.map((owner, index) => ({
    ownerId: stringToHex(owner, { size: 32 }), account: keys[index].address, revoker: zeroAddress,
    jurisdiction: stringToHex(COUNTRIES[index % COUNTRIES.length], { size: 2 }), grades: 2, epsilonCap: parseGwei("20"), deltaCap: 0n,
  }));
  const args = [stringToHex(name, { size: 32 }), stringToHex("healthcare", { size: 32 }), founders, threshold, kmsRoot, [], 172_800n];
  const { contractAddress: app } = await mined(await payer.deployContract({ abi, bytecode: bytecode.object, args, gas: 25_000_000n }));
  const registry = { address: study.registry, abi: parseAbi(["function registerApp(address)"]) };
  await mined(await payer.writeContract({ ...registry, functionName: "registerApp", args: [app] }));

  /** Terms out of exported typed data, as ABI and hashes take them. */
  const terms = ({ types, message }, changes = {}) =>
    Object.fromEntries(types.Terms.map(({ name: field, type }) => [field, changes[field] ?? (type.startsWith("uint") ? BigInt(message.terms[field]) : message.terms[field])]));
  return {
    app: app.toLowerCase(),
    keys,
    terms,
    id: (typed, changes) => hashStruct({ data: terms(typed, changes), primaryType: "Terms", types: { Terms: typed.types.Terms } }),
    /** An owner's signature over exported typed data, with other terms where `changes` has some. */
    signed: (typed, index, changes) =>
      keys[index].signTypedData({ ...typed, message: { owner: keys[index].address, terms: terms(typed, changes), deadline: BigInt(typed.message.deadline) } }),
    /** Approves on chain, by the signatures of these owners. */
    async approve(typed, owners, changes) {
      const batch = await Promise.all(owners.map(async (index) => ({
        owner: keys[index].address, deadline: BigInt(typed.message.deadline), signature: await this.signed(typed, index, changes),
      })));
      await mined(await payer.writeContract({ address: app, abi, functionName: "approveBySig", args: [terms(typed, changes), batch] }));
    },
  };
}
