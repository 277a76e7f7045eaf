// A copy of the contracts that can be broken, for script/mutants and script/prove.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { execFileSync } = require("node:child_process");

const root = path.join(__dirname, "..", "..");

/// A copy of what forge needs, at target/`name`.
function copy(name) {
  const dir = path.join(root, "target", name);
  fs.rmSync(dir, { recursive: true, force: true });
  fs.mkdirSync(path.join(dir, "target"), { recursive: true });
  for (const part of ["contracts", "test", "script", "foundry.toml"]) {
    fs.cpSync(path.join(root, part), path.join(dir, part), { recursive: true });
  }
  // The Solidity scripts embed a contract's code and would be compiled with each mutant of it.
  for (const file of fs.readdirSync(path.join(dir, "script"))) {
    if (file.endsWith(".sol")) fs.rmSync(path.join(dir, "script", file));
  }
  // Hard links: forge wants its libraries inside the project, and they are 200 MB.
  execFileSync("cp", ["-al", path.join(root, "node_modules"), path.join(dir, "node_modules")]);
  return dir;
}

/// Breaks the copy; returns how to mend it, or null where the text to replace does not occur exactly once.
function mutate(dir, { file, find, replace }) {
  const original = fs.readFileSync(path.join(root, "contracts", file), "utf8");
  if (original.split(find).length !== 2) return null;
  const broken = path.join(dir, "contracts", file);
  fs.writeFileSync(broken, original.replace(find, () => replace));
  return () => fs.writeFileSync(broken, original);
}

module.exports = { copy, mutate, root };
