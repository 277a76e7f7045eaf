// Runs one entry point of a Solidity script. Without `--broadcast` it is simulated on the chain's state and says what would
// be sent, with gas and cost; with it, forge simulates and then sends. `--safe` writes a file for a Safe instead.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { spawnSync } = require("node:child_process");
const { Failure, address, need, parse, unusable, wallet } = require("./arguments.js");
const safe = require("./safe.js");

const root = path.join(__dirname, "..", "..");
const COMMON_HELP = `
where   --deployment FILE (what script/deploy wrote), or --app ADDRESS and --chain-id N;  --rpc-url URL or ETH_RPC_URL
who     --account NAME | --keystore FILE [--password-file FILE] | --ledger | --trezor | --interactive
        --unlocked --sender ADDRESS (a node that holds the key: anvil)
        --sender ADDRESS (dry run only)
        --safe ADDRESS --out FILE (writes a batch for Safe's transaction builder)
A dry run unless --broadcast is given. Exit codes: 1 refused, 2 unusable input, 3 the endpoint does not answer.
`;

function tool(name, args, input) {
  return spawnSync(path.join(root, "script", name), args, { cwd: root, encoding: "utf8", input, maxBuffer: 1 << 28 });
}

function cast(...args) {
  const { status, stdout, stderr } = tool("cast", args);
  if (status !== 0) throw unreachableOr(stderr, (text) => unusable(text, "see the arguments of the script"));
  return stdout.trim();
}

function unreachableOr(stderr, otherwise) {
  const text = stderr.trim().replace(/^Error: /, "");
  if (/error sending request|[Cc]onnection refused|dns error|timed out|HTTP error/.test(text)) {
    return new Failure(3, `the endpoint does not answer: ${text.split("\n")[0]}`, "check --rpc-url, then try again");
  }
  return otherwise(text);
}

/// What a script's revert says: its own sentence and hint, or the contract's error.
function failed(stderr) {
  return unreachableOr(stderr, (text) => {
    const own = /(Unusable|Refused)\("((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)"\)/s.exec(text);
    if (own) return new Failure(own[1] === "Refused" ? 1 : 2, own[2], own[3]);
    const contract = /script failed: (DstackApp_\w+\(.*\)|DstackKms_\w+\(.*\))/s.exec(text);
    if (contract) return new Failure(1, `the contract refuses: ${contract[1]}`, "contracts/IDstackApp.sol explains each error");
    const input = /script failed: ((?:Input_\w+\(|vm\.).*)/s.exec(text);
    if (input) return new Failure(2, input[1], "script/README.md lists the keys");
    return new Failure(1, text, "script/README.md");
  });
}

/// forge reads files below the repository only.
function within(file, index) {
  const absolute = path.resolve(file);
  if (!fs.existsSync(absolute)) throw unusable(`cannot read ${file}`, "check the path");
  const relative = path.relative(root, absolute);
  if (!relative.startsWith("..") && !path.isAbsolute(relative)) return relative;
  const copy = path.join("target", "act", String(process.pid), String(index), path.basename(file));
  fs.mkdirSync(path.join(root, path.dirname(copy)), { recursive: true });
  fs.copyFileSync(absolute, path.join(root, copy));
  return copy;
}

function endpoint(flags) {
  const url = flags["rpc-url"] ?? process.env.ETH_RPC_URL;
  if (!url) throw unusable("--rpc-url is missing", "give it, or set ETH_RPC_URL");
  return url;
}

/// The contract and the chain that it is on, from a deployment file or from both flags.
function where(flags) {
  if (flags.deployment !== undefined && (flags.app !== undefined || flags["chain-id"] !== undefined)) {
    throw unusable("--deployment names contract and chain already", "leave out --app and --chain-id");
  }
  let known = { dstackApp: flags.app, chainId: flags["chain-id"] };
  if (flags.deployment !== undefined) {
    try {
      known = JSON.parse(fs.readFileSync(flags.deployment, "utf8"));
    } catch (error) {
      throw unusable(`${flags.deployment} is no deployment file: ${error.message}`, "give what script/deploy wrote");
    }
    if (!known || known.dstackApp === undefined) {
      throw unusable(`${flags.deployment} names no dstackApp`, "give what script/deploy app wrote");
    }
  } else {
    need(flags, "app");
    need(flags, "chain-id");
  }
  if (!/^[1-9][0-9]*$/.test(String(known.chainId))) {
    throw unusable(`the chain id is not a number: ${known.chainId}`, "a decimal number such as 1, 8453 or 31337");
  }
  return { app: address(String(known.dstackApp), "the app"), chainId: String(known.chainId) };
}

/// Runs forge and returns {logs, record}: the record is what forge noted of the transactions.
function forge({ source, signature, args, url, sender, broadcast }) {
  const folder = path.join("target", "act", String(process.pid));
  const command = ["script", `script/${source}`, "--sig", signature, ...args, "--rpc-url", url, ...sender, "--json"];
  // The exact estimate where it is shown, forge's reserve of 30 % where it is sent. One transaction after the other: sent all at once
  // they can arrive in another order, and a node that mines on arrival (anvil) then keeps one for ever.
  command.push(...(broadcast ? ["--broadcast", "--slow"] : ["--gas-estimate-multiplier", "100"]));
  const { status, stdout, stderr } = spawnSync(path.join(root, "script", "forge"), command, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, FOUNDRY_BROADCAST: folder },
    stdio: ["inherit", "pipe", "pipe"],
  });
  if (status !== 0) throw failed(stderr);
  const line = stdout.split("\n").find((l) => l.startsWith('{"logs"'));
  const entry = signature.slice(0, signature.indexOf("("));
  const chain = cast("chain-id", "--rpc-url", url);
  const file = path.join(root, folder, source, chain, broadcast ? "" : "dry-run", `${entry}-latest.json`);
  const record = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : { transactions: [], receipts: [] };
  return { logs: line ? JSON.parse(line).logs : [], record };
}

/// Ether with nine decimals, rounded up: a cost is not to look smaller than it is.
function ether(wei) {
  const gwei = (wei + 999_999_999n) / 1_000_000_000n;
  return `${gwei / 1_000_000_000n}.${String(gwei % 1_000_000_000n).padStart(9, "0")}`;
}

/// Long calldata is named by its hash.
function brief(data) {
  if (data.length <= 2000) return data;
  return `${data.slice(0, 74)}... (${(data.length - 2) / 2} bytes, keccak256 ${cast("keccak", data)})`;
}

function show(record, url) {
  const price = BigInt(cast("gas-price", "--rpc-url", url));
  let total = 0n;
  for (const { transaction, function: call, contractName, transactionType } of record.transactions) {
    const gas = BigInt(transaction.gas ?? 0);
    total += gas;
    console.log(`from          ${transaction.from}`);
    console.log(`to            ${transaction.to ?? "a new contract"}`);
    console.log(`call          ${call ?? `${transactionType} ${contractName ?? ""}`}`);
    if (transaction.to) console.log(`data          ${brief(transaction.input)}`);
    console.log(`gas           ${gas}`);
  }
  console.log(`cost          about ${ether(total * price)} of the chain's coin for ${total} gas at ${price} wei`);
}

/// The ABI entry of a call, from what the build has just written.
function abiOf(data) {
  const artifacts = ["IDstackApp.sol/IDstackApp.json", "IDstackKms.sol/IDstackKms.json"];
  for (const artifact of artifacts) {
    const file = path.join(root, "out", artifact);
    if (!fs.existsSync(file)) continue;
    const { abi, methodIdentifiers } = JSON.parse(fs.readFileSync(file, "utf8"));
    const signature = Object.keys(methodIdentifiers).find((s) => `0x${methodIdentifiers[s]}` === data.slice(0, 10));
    if (!signature) continue;
    const types = (inputs) => inputs.map((i) => (i.components ? i.type.replace("tuple", `(${types(i.components)})`) : i.type)).join(",");
    const entry = abi.find((e) => e.type === "function" && `${e.name}(${types(e.inputs)})` === signature);
    return { entry, signature };
  }
  throw new Failure(1, `no function is known for ${data.slice(0, 10)}`, "run: make contracts");
}

/// cast prints integers as JSON numbers, one a line; as text none is rounded.
function decode(signature, data) {
  const text = cast("decode-calldata", "--json", signature, data);
  return JSON.parse(text.replace(/^(\s*)(\d+)(,?)$/gm, '$1"$2"$3'));
}

function writeBatch(record, { chainId, safeAddress, out, name, description }) {
  const calls = record.transactions.map(({ transaction }) => {
    const { entry, signature } = abiOf(transaction.input);
    return {
      to: cast("to-check-sum-address", transaction.to),
      value: BigInt(transaction.value ?? 0).toString(),
      data: transaction.input,
      abi: entry,
      values: entry.inputs.length === 0 ? [] : decode(signature, transaction.input),
    };
  });
  const createdFrom = cast("to-check-sum-address", safeAddress);
  const file = safe.batch({ chainId, safe: createdFrom, name, description, createdAt: Date.now(), calls });
  fs.mkdirSync(path.dirname(path.resolve(out)), { recursive: true });
  fs.writeFileSync(out, `${JSON.stringify(file, null, 2)}\n`, { flag: "wx" });
  console.log(`-> ${out}: import it in Safe's transaction builder as ${createdFrom}`);
}

function act(verb, { flags, files }) {
  const url = endpoint(flags);
  const sender = wallet(flags);
  const place = verb.deploys ? { chainId: need(flags, "chain-id") } : where(flags);
  if (flags.safe !== undefined) {
    const out = need(flags, "out");
    if (fs.existsSync(out)) throw unusable(`${out} exists already`, "name another file");
  } else if (flags.out !== undefined) {
    throw unusable("--out is for --safe", "leave it out");
  }
  const call = verb.call({ flags, files, within, cast });
  const chain = cast("chain-id", "--rpc-url", url);
  if (chain !== place.chainId) {
    throw unusable(`the endpoint is chain ${chain}, not ${place.chainId}`, "give the --rpc-url of the chain that the contract is on");
  }
  if (flags.safe !== undefined && cast("code", flags.safe, "--rpc-url", url) === "0x") {
    throw unusable(`there is no contract at ${flags.safe} on chain ${chain}`, "give the address of a Safe on this chain");
  }
  const args = verb.deploys ? call.args : [place.app, place.chainId, ...call.args];
  const run = { source: call.source, signature: call.signature, args, url, sender };

  const { logs, record } = forge({ ...run, broadcast: flags.broadcast === true });
  for (const log of logs) console.log(log);
  if (record.transactions.length === 0) throw new Failure(1, "there is nothing to send", "see above");
  show(record, url);
  if (flags.safe !== undefined) {
    writeBatch(record, { chainId: chain, safeAddress: flags.safe, out: flags.out, name: verb.name, description: logs.join("; ") });
  } else if (flags.broadcast) {
    report(record);
  } else {
    console.log("dry run: nothing was sent; add --broadcast to send it");
  }
}

function report({ receipts }) {
  for (const { transactionHash, gasUsed, blockNumber, status } of receipts) {
    if (BigInt(status) !== 1n) throw new Failure(1, `transaction ${transactionHash} failed`, "see it in an explorer");
    console.log(`transaction   ${transactionHash}, block ${BigInt(blockNumber)}, ${BigInt(gasUsed)} gas`);
  }
}

/// Runs a verb: {name, usage, values, switches, maxFiles, deploys, call({flags, files}) -> {source, signature, args}}.
function main(verb) {
  try {
    const parsed = parse(process.argv.slice(2), verb);
    if (parsed.flags.help) console.log(`usage: script/${verb.usage}\n${COMMON_HELP}`.trimEnd());
    else act(verb, parsed);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    process.stderr.write(`error: ${error.message}\nhint: ${error.hint}\n`);
    process.exitCode = error.code;
  } finally {
    fs.rmSync(path.join(root, "target", "act", String(process.pid)), { recursive: true, force: true });
  }
}

module.exports = { main };
