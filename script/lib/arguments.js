// The command line of the scripts that act on a contract: long flags only, each known, each at most once.
"use strict";

/// Exit codes as of `cohort`: 1 refused, 2 unusable input, 3 no answer.
class Failure extends Error {
  constructor(code, what, hint) {
    super(what);
    this.code = code;
    this.hint = hint;
  }
}
const unusable = (what, hint) => new Failure(2, what, hint);

/// Who sends. Keys stay in keystores, in hardware or in the node: an argument is seen by every process of the machine.
const WALLET_VALUES = ["account", "keystore", "password-file", "hd-paths"];
const WALLET_SWITCHES = ["ledger", "trezor", "interactive", "unlocked"];
const SECRET_FLAGS = ["private-key", "private-keys", "mnemonic", "mnemonics", "mnemonic-passphrases", "password"];
const COMMON_VALUES = ["rpc-url", "deployment", "app", "chain-id", "sender", "safe", "out", ...WALLET_VALUES];
const COMMON_SWITCHES = ["broadcast", "help", ...WALLET_SWITCHES];

/// {flags, files}: `values` and `switches` are the verb's own flags beside the common ones.
function parse(argv, { values = [], switches = [], maxFiles = 0 }) {
  const flags = {};
  const files = [];
  for (let i = 0; i < argv.length; i += 1) {
    const match = /^--([a-z-]+)(?:=(.*))?$/s.exec(argv[i]);
    if (!match) {
      if (argv[i].startsWith("-")) throw unusable(`unknown argument ${argv[i]}`, "see --help");
      files.push(argv[i]);
      continue;
    }
    const [, name, inline] = match;
    if (SECRET_FLAGS.includes(name)) {
      throw unusable(`--${name} would show the secret to every process`, "use --account (script/cast wallet import), --ledger or --trezor");
    }
    if (name in flags) throw unusable(`--${name} is given twice`, "give it once");
    if ([...COMMON_SWITCHES, ...switches].includes(name) && inline === undefined) {
      flags[name] = true;
    } else if ([...COMMON_VALUES, ...values].includes(name)) {
      const value = inline ?? argv[(i += 1)];
      if (value === undefined) throw unusable(`--${name} wants a value`, "see --help");
      flags[name] = value;
    } else {
      throw unusable(`unknown argument --${name}`, "see --help");
    }
  }
  if (files.length > maxFiles) throw unusable(`unexpected argument ${files[maxFiles]}`, "see --help");
  return { flags, files };
}

function need(flags, name) {
  if (flags[name] === undefined) throw unusable(`--${name} is missing`, "see --help");
  return flags[name];
}

function address(text, name) {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) throw unusable(`${name} is not an address: ${text}`, "20 bytes in 0x hex");
  return text;
}

function word(text, name) {
  if (!/^0x[0-9a-fA-F]{64}$/.test(text)) throw unusable(`${name} is not a hash: ${text}`, "32 bytes in 0x hex");
  return text;
}

/// What forge is to be told about the sender.
function wallet(flags) {
  const own = [...WALLET_VALUES, ...WALLET_SWITCHES].filter((name) => flags[name] !== undefined);
  if (flags.safe !== undefined) {
    if (own.length > 0 || flags.sender !== undefined || flags.broadcast) {
      throw unusable("--safe writes a file for the Safe and sends nothing", "leave out the wallet and --broadcast");
    }
    return ["--sender", address(flags.safe, "--safe")];
  }
  const inEnvironment = ["ETH_KEYSTORE", "ETH_KEYSTORE_ACCOUNT"].some((name) => process.env[name]);
  if (own.length === 0 && (flags.broadcast || flags.sender === undefined) && !inEnvironment) {
    throw unusable(
      "nobody is there to send it",
      "give --account, --ledger or --trezor; --unlocked --sender on anvil; --safe for a file; --sender for a dry run only",
    );
  }
  const args = own.flatMap((name) => (flags[name] === true ? [`--${name}`] : [`--${name}`, flags[name]]));
  if (flags.sender !== undefined) args.push("--sender", address(flags.sender, "--sender"));
  return args;
}

module.exports = { Failure, address, need, parse, unusable, wallet, word };
