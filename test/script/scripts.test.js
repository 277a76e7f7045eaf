// The scripts against a chain: each does what it says, a dry run sends nothing, and every mistake is named.
//
//   node --test test/script/scripts.test.js
"use strict";
const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, test } = require("node:test");
const { checksum } = require("../../script/lib/safe.js");
const { Chain, accounts, from, must, readJson, root, script } = require("./fixture.js");

const word = (digit) => `0x${digit.repeat(64)}`;
const LIVE = "0";
const REVOKED = "2";
const ERA_ENDED = "4";
let chain;
let expiry;

before(async () => {
  chain = await Chain.start();
  chain.deploy();
  expiry = Number((await chain.rpc("eth_getBlockByNumber", "latest", false)).timestamp) + 30 * 86_400;
});
after(() => chain?.stop());

/// What `cohort terms` writes.
function terms(changes = {}) {
  return {
    compose_hash: word("1"),
    recipe_hash: word("2"),
    output_schema_hash: word("3"),
    epsilon_per_run: "1.5",
    delta_per_run: "0",
    epsilon_budget: "3",
    delta_budget: "0",
    expiry,
    devices: word("0"),
    systems: word("4"),
    era: 0,
    round: 0,
    ...changes,
  };
}

const here = (...flags) => ["--deployment", chain.deployment, "--rpc-url", chain.url, ...flags];
const decision = (id) => chain.call(chain.app, "proposalDecision(bytes32)(uint8)", id);
const proposalIn = (out) => /^proposal +(0x[0-9a-f]{64})$/m.exec(out)[1];
const block = () => chain.rpc("eth_blockNumber");

/// Proposed by hospital-A; returns terms file and id.
function proposed(name, changes) {
  const file = chain.write(`${name}.json`, terms(changes));
  const { out } = must(script("propose", "--terms", file, ...here(...from("hospitalA"))));
  return { file, id: proposalIn(out) };
}

test("script/README.md does what it says, on a chain of its own", async () => {
  const page = fs.readFileSync(path.join(root, "script", "README.md"), "utf8");
  const [, block] = /```sh\n([\s\S]*?)```/.exec(page);
  const fresh = await Chain.start();
  try {
    // What is installed, and the chain that runs, are here already.
    const here = block.replace(/^npm ci$/m, "").replace(/^script\/anvil .*&$/m, "sleep 60 &").replaceAll("http://127.0.0.1:8545", fresh.url);
    assert.ok(here.includes("sleep 60 &") && here.includes(fresh.url));
    const { status, stdout, stderr } = spawnSync("bash", ["-euc", here], { cwd: root, encoding: "utf8" });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    const { dstackApp } = readJson(path.join(root, "target", "deploy", "app.json"));
    // Deployed, and all ended by one owner.
    assert.equal(fresh.call(dstackApp, "config()(uint128,uint8,uint8,uint32,uint64,uint64)").split("\n")[3], "1");
  } finally {
    fresh.anvil.kill();
  }
});

function refuses(result, status, words) {
  assert.equal(result.status, status, `${result.out}\n${result.err}`);
  assert.match(result.err, words);
  assert.match(result.err, /^hint: ./m);
}

test("a dry run is the default: it tells call, gas and cost, and sends nothing", async () => {
  const file = chain.write("dry.json", terms({ round: 1 }));
  const start = await block();
  const { out } = must(script("propose", "--terms", file, ...here("--sender", accounts.hospitalA)));
  assert.match(out, /^owner +hospital-A$/m);
  assert.match(out, /^devices +any$/m);
  assert.match(out, new RegExp(`^CVM images +only the mr_system values with the list hash ${word("4")}$`, "m"));
  assert.match(out, /^privacy +epsilon 1\.5 per run, 3 in all$/m);
  assert.match(out, /^call +approve\(\(/m);
  assert.match(out, /^gas +\d{5,6}$/m);
  assert.match(out, /^cost +about 0\.0\d+ /m);
  assert.match(out, /^then +1 of 3 approvals, waiting for more approvals$/m);
  assert.match(out, /nothing was sent/);
  assert.equal(await block(), start);
  assert.equal(decision(proposalIn(out)), "1");
});

test("propose and approve make a proposal live, with the terms of the file", async () => {
  const { file, id } = proposed("live", { round: 2, epsilon_per_run: "0.000000001", epsilon_budget: "10", delta_budget: "7" });
  must(script("approve", "--terms", file, ...here(...from("hospitalB"))));
  const { out } = must(script("approve", "--terms", file, ...here(...from("hospitalC"))));
  assert.match(out, /^then +3 of 3 approvals, live$/m);
  assert.match(out, /^transaction +0x[0-9a-f]{64}, block \d+, \d+ gas$/m);
  assert.equal(decision(id), LIVE);
  const [, , , , , ends, runs] = chain
    .call(chain.app, "proposal(bytes32)(uint128,uint8,bool,bool,uint32,uint64,uint64)", id)
    .split("\n")
    .map((line) => line.split(" ")[0]);
  assert.deepEqual([ends, runs], [String(expiry), "0"]);
  const logs = await chain.rpc("eth_getLogs", { address: chain.app, fromBlock: "0x0", topics: [null, id] });
  const created = logs[0];
  // The terms are the event's first words after the two indexed ones.
  const word = (index) => BigInt(`0x${created.data.slice(2 + 64 * index, 66 + 64 * index)}`);
  assert.deepEqual([word(5), word(6)], [10_000_000_000n, 7n], "epsilon and delta budget");
});

test("relay submits signatures that others made", async () => {
  const { file, id } = proposed("relayed", { round: 3 });
  const deadline = expiry;
  const files = [];
  for (const name of ["hospitalB", "hospitalC"]) {
    const owner = accounts[name];
    const signature = await chain.rpc("eth_signTypedData_v4", owner, typedApproval(owner, readJson(file), deadline));
    const approval = { format: "cohort-approval/1", chain_id: 31337, app: chain.app, terms: readJson(file), owner, deadline, signature };
    files.push(chain.write(`${name}.json`, approval));
  }
  must(script("relay", ...files, ...here(...from("stranger"))));
  assert.equal(decision(id), LIVE);

  const other = chain.write("other.json", { ...readJson(files[0]), app: chain.registry });
  refuses(script("relay", other, ...here(...from("stranger"))), 2, /another chain or contract/);
  const mixed = chain.write("mixed.json", { ...readJson(files[1]), terms: terms({ round: 33 }) });
  refuses(script("relay", files[0], mixed, ...here(...from("stranger"))), 2, /other terms than the first/);
  const late = chain.write("late.json", { ...readJson(files[0]), terms: terms({ round: 33 }), deadline: 1 });
  refuses(script("relay", late, ...here(...from("stranger"))), 1, /deadline .* has passed/);
  const forged = chain.write("forged.json", { ...readJson(files[0]), terms: terms({ round: 33 }) });
  refuses(script("relay", forged, ...here(...from("stranger"))), 1, /DstackApp_BadSignature/);
  refuses(script("relay", ...here(...from("stranger"))), 2, /no signature is given/);
});

test("revoke stops for good, by account or revocation key, and again changes nothing", () => {
  const { file, id } = proposed("revoked", { round: 4 });
  const { out } = must(script("revoke", "--proposal", id, ...here(...from("revokerA"))));
  assert.match(out, /^owner +hospital-A$/m);
  assert.equal(decision(id), REVOKED);
  assert.match(must(script("revoke", "--proposal", id, ...here(...from("hospitalB")))).out, /revoked already/);
  assert.match(must(script("revoke", "--proposal", word("9"), ...here("--sender", accounts.hospitalB))).out, /in advance/);
  refuses(script("approve", "--terms", file, ...here(...from("hospitalB"))), 1, /is revoked/);
  refuses(script("revoke", "--proposal", id, ...here(...from("stranger"))), 1, /not an owner's account or revocation key/);
});

test("reject records a no and changes nothing", async () => {
  const { id } = proposed("rejected", { round: 5 });
  must(script("reject", "--proposal", id, "--reason", "budget too large", ...here(...from("hospitalB"))));
  const [log] = await chain.rpc("eth_getLogs", { address: chain.app, topics: [keccak("ProposalRejected(bytes32,uint8,string)")] });
  assert.equal(log.topics[1], id);
  assert.ok(Buffer.from(log.data.slice(2), "hex").includes("budget too large"));
  refuses(script("reject", "--proposal", word("9"), "--reason", "no", ...here(...from("hospitalB"))), 1, /is unknown/);
  refuses(script("reject", "--proposal", id, "--reason", "x".repeat(257), ...here(...from("hospitalB"))), 2, /longer than 256/);
});

test("register puts a dataset and the consortium on chain, once", () => {
  const card = {
    file: "a.tar",
    owner: "hospital-A",
    chain_id: 31337,
    analysis_app_id: chain.app,
    analysis_compose_hash: word("1"),
    rows: 920,
    sealed_bytes: 1048576,
    dataset_id: word("d"),
  };
  const file = chain.write("card.json", card);
  const labels = ["--region", "EU-West", "--kind", "EHR"];
  refuses(script("register", "dataset", "--card", file, ...labels, ...here(...from("hospitalB"))), 1, /belongs to hospital-A/);
  must(script("register", "dataset", "--card", file, ...labels, ...here(...from("hospitalA"))));
  assert.match(chain.call(chain.app, "dataset(bytes32)(bool,bool,uint8,bytes32)", word("d")), /^true\nfalse\n0\n/);
  refuses(script("register", "dataset", "--card", file, ...labels, ...here(...from("hospitalA"))), 1, /registered already/);
  const elsewhere = chain.write("card2.json", { ...card, chain_id: 1 });
  refuses(script("register", "dataset", "--card", elsewhere, ...labels, ...here(...from("hospitalA"))), 2, /another chain/);
  const long = ["--region", "x".repeat(33), "--kind", "EHR"];
  refuses(script("register", "dataset", "--card", file, ...long, ...here(...from("hospitalA"))), 2, /Input_NotAscii32/);

  must(script("register", "app", "--registry", chain.registry, ...here(...from("stranger"))));
  assert.equal(chain.call(chain.registry, "registeredApps(address)(bool)", chain.app), "true");
  refuses(script("register", "app", "--registry", chain.registry, ...here(...from("stranger"))), 1, /registered already/);
  refuses(script("register", "app", "--registry", accounts.stranger, ...here(...from("stranger"))), 2, /no contract at/);
});

test("govern approves, vetoes and executes a call of the contract on itself", async () => {
  const action = chain.write("action.json", { function: "setAnalyst(address,bool)", arguments: [accounts.stranger, "true"], salt: word("5") });
  for (const owner of ["hospitalA", "hospitalB", "hospitalC"]) {
    must(script("govern", "approve", "--action", action, ...here(...from(owner))));
  }
  refuses(script("govern", "execute", "--action", action, ...here(...from("stranger"))), 1, /DstackApp_ActionNotReady/);
  await chain.rpc("evm_increaseTime", 3600);
  await chain.rpc("evm_mine");
  must(script("govern", "execute", "--action", action, ...here(...from("stranger"))));
  assert.equal(chain.call(chain.app, "isAnalyst(address)(bool)", accounts.stranger), "true");

  const other = chain.write("vetoed.json", { ...readJson(action), salt: word("6") });
  const { out } = must(script("govern", "approve", "--action", other, ...here(...from("hospitalA"))));
  const [, id] = /^action +(0x[0-9a-f]{64})$/m.exec(out);
  must(script("govern", "veto", "--id", id, ...here(...from("hospitalD"))));
  refuses(script("govern", "approve", "--action", other, ...here(...from("hospitalB"))), 1, /DstackApp_ActionNotReady/);
  const foreign = chain.write("foreign.json", { ...readJson(action), function: "approve(bytes32)", arguments: [word("1")] });
  refuses(script("govern", "approve", "--action", foreign, ...here(...from("hospitalB"))), 1, /InvalidField\("data"\)/);
});

test("a Safe gets a file that its builder imports and that does what it says", async () => {
  // An owner with code: what the file holds is sent from it as the Safe would.
  await chain.rpc("anvil_setCode", accounts.hospitalD, "0x00");
  const { file, id } = proposed("safe", { round: 6 });
  const cases = [
    ["approve", ["--terms", file]],
    ["revoke", ["--proposal", id]],
    ["revoke", ["--all"]],
    ["govern", ["approve", "--action", chain.file("action.json")]],
  ];
  chain.write("action.json", { function: "setThreshold(uint8)", arguments: ["2"], salt: word("7") });
  const batches = cases.map(([verb, args], i) => {
    const out = path.join(root, chain.file(`safe-${i}.json`));
    must(script(verb, ...args, ...here("--safe", accounts.hospitalD, "--out", out)));
    return readJson(out);
  });
  for (const batch of batches) {
    assert.equal(batch.version, "1.0");
    assert.equal(batch.chainId, "31337");
    assert.equal(typeof batch.createdAt, "number");
    assert.equal(batch.meta.createdFromSafeAddress, accounts.hospitalD);
    assert.equal(batch.meta.checksum, checksum(batch));
    assert.notEqual(batch.meta.checksum, checksum({ ...batch, chainId: "1" }));
    for (const { to, value, data } of batch.transactions) assert.deepEqual([to, value, data.slice(0, 2)], [chain.app, "0", "0x"]);
  }
  const [{ transactions: [approval] }, { transactions: [revocation] }, { transactions: [all] }, { transactions: [governance] }] = batches;
  assert.deepEqual(all.contractInputsValues, {});
  assert.deepEqual(revocation.contractInputsValues, { proposalId: id });
  assert.deepEqual(Object.keys(governance.contractInputsValues), ["data", "salt"]);
  assert.equal(approval.contractMethod.name, "approve");
  assert.equal(approval.contractMethod.inputs[0].type, "tuple");
  assert.ok(JSON.parse(approval.contractInputsValues.terms).includes("1500000000"), "integers are text: the builder refuses numbers");

  await chain.rpc("anvil_impersonateAccount", accounts.hospitalD);
  await chain.rpc("eth_sendTransaction", { from: accounts.hospitalD, to: approval.to, data: approval.data });
  assert.match(chain.call(chain.app, "proposal(bytes32)(uint128)", id), /^9\b/, "hospital-A and hospital-D");
  await chain.rpc("eth_sendTransaction", { from: accounts.hospitalD, to: revocation.to, data: revocation.data });
  assert.equal(decision(id), REVOKED);
  await chain.rpc("anvil_setCode", accounts.hospitalD, "0x");

  const out = ["--out", path.join(root, chain.file("none.json"))];
  refuses(script("revoke", "--all", ...here("--safe", accounts.hospitalD, ...out)), 2, /no contract at/);
  refuses(script("revoke", "--all", ...here("--safe", accounts.hospitalD, "--broadcast", ...out)), 2, /sends nothing/);
  refuses(script("revoke", "--all", ...here("--safe", accounts.hospitalD)), 2, /--out is missing/);
  assert.ok(!fs.existsSync(out[1]));
});

test("a keystore signs, and no key is taken from an argument", () => {
  const folder = path.join(root, chain.file("keys"));
  const password = chain.write("password", "correct horse");
  const key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"; // anvil's first, public
  must(script("cast", "wallet", "import", "relayer", "--keystore-dir", folder, "--private-key", key, "--unsafe-password", "correct horse"));
  const wallet = ["--keystore", path.join(folder, "relayer"), "--password-file", password];
  refuses(script("revoke", "--all", ...here(...wallet)), 1, new RegExp(`${accounts.deployer} is not an owner's`, "i"));
  refuses(script("revoke", "--all", ...here("--private-key", key)), 2, /every process/);
  refuses(script("revoke", "--all", ...here(`--private-key=${key}`)), 2, /every process/);
});

test("mistakes about the chain, the contract and the sender are named", () => {
  const { file, id } = proposed("mistakes", { round: 7 });
  const at = (...flags) => ["--app", chain.app, "--rpc-url", chain.url, ...flags];
  refuses(script("approve", "--terms", file, ...at("--chain-id", "1", ...from("hospitalB"))), 2, /endpoint is chain 31337, not 1/);
  refuses(script("revoke", "--proposal", id, ...at("--chain-id", "1", ...from("hospitalB"))), 2, /endpoint is chain 31337, not 1/);
  const wrong = ["--chain-id", "31337", "--rpc-url", chain.url, ...from("hospitalB")];
  refuses(script("approve", "--terms", file, "--app", accounts.stranger, ...wrong), 2, /no contract at/);
  refuses(script("approve", "--terms", file, "--app", chain.registry, ...wrong), 2, /not this checkout's DstackApp/);
  refuses(script("approve", "--terms", file, "--app", "0x1234", ...wrong), 2, /not an address/);
  refuses(script("approve", "--terms", file, ...here(...from("stranger"))), 1, /is not an owner's account/);
  refuses(script("approve", "--terms", file, ...here(...from("revokerA"))), 1, /is not an owner's account/);
  refuses(script("propose", "--terms", file, ...here(...from("hospitalB"))), 1, /is there already/);
  const unknown = chain.write("unknown.json", terms({ round: 8 }));
  refuses(script("approve", "--terms", unknown, ...here(...from("hospitalB"))), 1, /is unknown: nobody has proposed/);
  refuses(script("approve", "--terms", file, ...here()), 2, /nobody is there to send it/);
  refuses(script("approve", "--terms", file, ...here("--broadcast", "--sender", accounts.hospitalB)), 2, /nobody is there to send it/);
  const down = ["--deployment", chain.deployment, "--rpc-url", "http://127.0.0.1:1", ...from("hospitalB")];
  refuses(script("approve", "--terms", file, ...down), 3, /does not answer/);
  refuses(script("approve", "--terms", file, "--terms", file, ...here(...from("hospitalB"))), 2, /given twice/);
  refuses(script("approve", "--term", file, ...here(...from("hospitalB"))), 2, /unknown argument --term/);
});

test("files that are not as cohort writes them are refused by name and key", () => {
  const wrong = [
    ["", /is not a JSON object/],
    ["{", /is not a JSON object/],
    ["[]", /is not a JSON object/],
    [terms({ era: 1 }), /for era 1, the app is in era 0/, 1],
    [terms({ expiry: 1 }), /have expired/, 1],
    [terms({ era: undefined }), /has no \.era/],
    [terms({ budget: "1" }), /unknown key \.budget/],
    [terms({ compose_hash: "0x1234" }), /\.compose_hash must be 32 bytes/],
    [terms({ compose_hash: 7 }), /\.compose_hash/],
    [terms({ epsilon_per_run: "1.5e3" }), /\.epsilon_per_run must be a decimal/],
    [terms({ epsilon_per_run: "0.0000000001" }), /\.epsilon_per_run must be a decimal/],
    [terms({ epsilon_per_run: "-1" }), /\.epsilon_per_run must be a decimal/],
    [terms({ epsilon_per_run: "1." }), /\.epsilon_per_run must be a decimal/],
    [terms({ epsilon_per_run: "" }), /\.epsilon_per_run must be a decimal/],
    [terms({ epsilon_budget: "18446744073.709551616" }), /\.epsilon_budget must be a decimal/],
    [terms({ delta_budget: "0.5" }), /\.delta_budget must be a decimal/],
    [terms({ round: 4294967296 }), /\.round is more than 4294967295/],
    [terms({ epsilon_per_run: "4" }), /InvalidField\("epsilonBudget"\)/, 1],
  ];
  for (const [content, words, status] of wrong) {
    const file = chain.write("wrong.json", content);
    refuses(script("propose", "--terms", file, ...here("--sender", accounts.hospitalA)), status ?? 2, words);
  }
  refuses(script("propose", "--terms", chain.file("missing.json"), ...here("--sender", accounts.hospitalA)), 2, /cannot read/);
  const notDeployed = chain.write("not-deployed.json", { chainId: 31337 });
  const flags = ["--terms", chain.file("live.json"), "--deployment", notDeployed, "--rpc-url", chain.url];
  refuses(script("propose", ...flags, "--sender", accounts.hospitalA), 2, /names no dstackApp/);
});

test("verify tells this checkout's code from other code", () => {
  must(script("verify", "DstackApp", chain.app, chain.url));
  must(script("verify", "DstackKms", chain.registry, chain.url));
  assert.equal(script("verify", "DstackApp", chain.registry, chain.url).status, 1);
  assert.equal(script("verify", "DstackApp", accounts.stranger, chain.url).status, 1);
});

// Last: it ends every proposal.
test("revoke --all ends the era, and terms of the old one are refused", () => {
  const { file, id } = proposed("era", { round: 9 });
  assert.match(must(script("revoke", "--all", ...here(...from("hospitalC")))).out, /era 0 ends/);
  assert.equal(decision(id), ERA_ENDED);
  refuses(script("approve", "--terms", file, ...here(...from("hospitalB"))), 1, /for era 0, the app is in era 1/);
});

function keccak(text) {
  return must(script("cast", "keccak", text)).out.trim();
}

function typedApproval(owner, t, deadline) {
  const field = (type, name) => ({ type, name });
  const u64 = (name) => field("uint64", name);
  const hash = (name) => field("bytes32", name);
  return {
    types: {
      EIP712Domain: [field("string", "name"), field("string", "version"), field("uint256", "chainId"), field("address", "verifyingContract")],
      Approve: [field("address", "owner"), field("Terms", "terms"), u64("deadline")],
      Terms: [
        hash("composeHash"),
        hash("recipeHash"),
        hash("outputSchemaHash"),
        u64("epsilonPerRun"),
        u64("deltaPerRun"),
        u64("epsilonBudget"),
        u64("deltaBudget"),
        u64("expiry"),
        hash("devices"),
        hash("systems"),
        field("uint32", "era"),
        field("uint32", "round"),
      ],
    },
    primaryType: "Approve",
    domain: { name: "DstackApp", version: "1", chainId: 31337, verifyingContract: chain.app },
    message: {
      owner,
      terms: {
        composeHash: t.compose_hash,
        recipeHash: t.recipe_hash,
        outputSchemaHash: t.output_schema_hash,
        epsilonPerRun: "1500000000",
        deltaPerRun: "0",
        epsilonBudget: "3000000000",
        deltaBudget: "0",
        expiry: t.expiry,
        devices: t.devices,
        systems: t.systems,
        era: t.era,
        round: t.round,
      },
      deadline,
    },
  };
}
