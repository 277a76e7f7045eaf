// A chain of its own with the registry and one consortium, deployed by the scripts under test.
"use strict";
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const { spawn, spawnSync } = require("node:child_process");

const root = path.join(__dirname, "..", "..");
const work = path.join(root, "target", "script-test", String(process.pid));

// anvil's accounts, as script/examples/app.json lists them.
const accounts = {
  deployer: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
  hospitalA: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
  hospitalB: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
  hospitalC: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
  hospitalD: "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
  revokerA: "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
  stranger: "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
};

// Without what the developer's own shell says about endpoints and wallets.
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ETH_")));

/// {status, out, err} of script/NAME.
function script(name, ...args) {
  const { status, stdout, stderr } = spawnSync(path.join(root, "script", name), args, { encoding: "utf8", env: environment });
  return { status, out: stdout, err: stderr };
}

class Chain {
  static async start() {
    fs.mkdirSync(work, { recursive: true });
    const chain = new Chain();
    chain.port = await freePort();
    chain.url = `http://127.0.0.1:${chain.port}`;
    chain.anvil = spawn(path.join(root, "script", "anvil"), ["--silent", "--port", String(chain.port)], { stdio: "ignore" });
    for (let i = 0; i < 100; i += 1) {
      try {
        await chain.rpc("eth_chainId");
        return chain;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    throw new Error("anvil does not answer");
  }

  async rpc(method, ...params) {
    const response = await fetch(this.url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
    });
    const { result, error } = await response.json();
    if (error) throw new Error(error.message);
    return result;
  }

  call(to, signature, ...args) {
    const { status, out, err } = script("cast", "call", to, signature, ...args, "--rpc-url", this.url);
    if (status !== 0) throw new Error(err);
    return out.trim();
  }

  deploy() {
    const run = (what, input) =>
      must(script("deploy", what, input, "--chain-id", "31337", "--rpc-url", this.url, ...from("deployer")));
    run("kms", this.input("kms", { output: this.file("deployed-kms.json") }));
    this.registry = readJson(path.join(root, this.file("deployed-kms.json"))).dstackKms;
    const owners = readJson(path.join(root, "script", "examples", "app.json")).owners;
    run("app", this.input("app", {
      output: this.file("deployed-app.json"),
      dstackKms: undefined,
      owners: owners.map((owner) => ({ ...owner, epsilonCap: "1000000000000", deltaCap: "1000" })),
    }));
    this.deployment = path.join(root, this.file("deployed-app.json"));
    this.app = readJson(this.deployment).dstackApp;
  }

  /// An example's input with some keys changed.
  input(name, changes) {
    return this.write(`${name}.json`, { ...readJson(path.join(root, "script", "examples", `${name}.json`)), ...changes });
  }

  /// A path in this test's own folder, relative to the repository.
  file(name) {
    return path.relative(root, path.join(work, name));
  }

  write(name, value) {
    const file = path.join(work, name);
    fs.writeFileSync(file, typeof value === "string" ? value : JSON.stringify(value));
    return file;
  }

  async stop() {
    this.anvil.kill();
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/// Flags of an account that anvil holds the key of.
const from = (name) => ["--broadcast", "--unlocked", "--sender", accounts[name]];

function must(result) {
  if (result.status !== 0) throw new Error(`status ${result.status}: ${result.err}`);
  return result;
}

const readJson = (file) => JSON.parse(fs.readFileSync(file, "utf8"));

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

module.exports = { Chain, accounts, from, must, readJson, root, script };
