// The real stack: `cohort dev demo --keep` with a chain, registry, consortium, sealed data, KMS, agent, and a finished study.
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const PROJECT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const PROGRAMS = join(PROJECT, "target/debug");
const run = promisify(execFile);

/** Starts a program and waits for a line; the program ends when `stop` is called or this process does. */
function started(name, program, args, options, ready) {
  const child = spawn(program, args, { ...options, stdio: ["pipe", "pipe", "pipe"] });
  const stop = () => new Promise((resolve) => (child.exitCode === null ? (child.once("exit", resolve), child.kill("SIGTERM")) : resolve()));
  process.once("exit", () => child.kill("SIGTERM"));
  const found = new Promise((resolve, reject) => {
    let text = "";
    const take = (chunk) => {
      text += chunk;
      const match = ready(text);
      if (match) resolve(match);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("exit", (code) => reject(new Error(`${name} ended with ${code}:\n${text.slice(-2000)}`)));
  });
  return { found, stop };
}

export async function stack() {
  const demo = started("cohort dev demo", join(PROGRAMS, "cohort"), ["dev", "demo", "--keep"], { cwd: PROJECT }, (text) => {
    if (!text.includes("next, in another terminal")) return null;
    const folder = /^ {2}cd (\S+)$/m.exec(text)?.[1];
    const url = (name) => new RegExp(`^ {2}${name} +(http\\S+)$`, "m").exec(text)?.[1];
    return folder && { folder, rpc: url("chain"), agent: url("agent") };
  });
  const { folder, rpc, agent } = await demo.found;
  const config = readFileSync(join(folder, "cohort.toml"), "utf8");
  const setting = (name) => new RegExp(`^${name} = "([^"]+)"$`, "m").exec(config)?.[1];
  const key = (name) => {
    const digits = readFileSync(join(folder, `keys/${name}.key`), "utf8").trim();
    return digits.startsWith("0x") ? digits : `0x${digits}`;
  };
  return {
    folder,
    rpc,
    agent,
    app: setting("app").toLowerCase(),
    registry: setting("registry"),
    key,
    /** Runs `cohort` in the study's folder: {code, stdout, stderr}. */
    async cohort(...args) {
      const env = { ...process.env, COHORT_INSECURE_DEV_ATTESTATION_ROOT: "platform-root.pem" };
      try {
        return { code: 0, ...(await run(join(PROGRAMS, "cohort"), args, { cwd: folder, env })) };
      } catch (error) {
        return { code: error.code, stdout: error.stdout, stderr: error.stderr };
      }
    },
    stop: demo.stop,
  };
}

/** An indexer of its own, so that it can be cut off from the chain. */
export async function indexer(rpc, registry, folder, connections) {
  const args = ["--rpc-url", rpc, "--registry", registry, "--database", join(folder, "console.sqlite"), "--listen", "127.0.0.1:0", "--max-lag", "3", "--console-connect", connections.map((url) => url.replace(/\/$/, "")).join()];
  const child = started("cohort-indexer", join(PROGRAMS, "cohort-indexer"), args, {}, (text) => /listening (http\S+)/.exec(text)?.[1]);
  return { url: await child.found, stop: child.stop };
}

/** A way to the chain that can be cut and joined again. */
export async function cable(rpc) {
  const target = new URL(rpc);
  const sockets = new Set();
  let whole = true;
  const server = createServer((near) => {
    if (!whole) return near.destroy();
    const far = connect(Number(target.port), target.hostname);
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket);
      socket.pipe(other);
      socket.on("error", () => other.destroy());
      socket.on("close", () => (sockets.delete(socket), other.destroy()));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      whole = false;
      for (const socket of sockets) socket.destroy();
    },
    join: () => (whole = true),
    close: () => server.close(),
  };
}
