// What Intel publishes about machines of a kind, as it stands in a result's evidence: revocations, TCB levels and the
// quoting enclave's identity, each signed under the root that the quote leads to. The rules are those of `cohort verify`
// by default: the machine's level is up to date, and no advisory is open.
import { bytesToHex, hexToBytes } from "@noble/hashes/utils";
import { FormatError, integer, list, parseJson, text, type Json, type JsonObject } from "../format/json";
import { authority, elements, inside, named, only, pem, revocationList, TAG, type Certificate, type Element, type Revoked } from "./der";
import { issued, part, same, valid, verified, type Quote, type Signed } from "./quote";

/** Out of date, or it revokes the machine: the evidence is whole, but is of no use. */
export class CollateralError extends FormatError {}

export interface Appraised {
  /** PPID of the machine, of which the device id is the hash. */
  ppid: Uint8Array;
  evaluation: number;
}

/** The PCK certificate's extension: `id` is Intel's, the parts' are one longer. */
const SGX = "2a864886f84d010d01";

interface Machine {
  ppid: Uint8Array;
  fmspc: string;
  cpu: Uint8Array;
  pce: number;
}

const big = (bytes: Uint8Array) => bytes.reduce((sum, byte) => sum * 256 + byte, 0);

function machine(pck: Certificate): Machine {
  const extension = pck.extensions.get(SGX);
  if (!extension) throw new FormatError("the PCK certificate says nothing of its machine");
  const fields = named(inside(extension.value));
  const value = (from: Map<string, Element[]>, id: string, tag: number) => only(from.get(SGX + id)?.[0], tag);
  const tcb = named(elements(value(fields, "02", TAG.sequence)));
  const cpu = value(tcb, "0212", TAG.octets);
  const fmspc = value(fields, "04", TAG.octets);
  const ppid = value(fields, "01", TAG.octets);
  if (cpu.length !== 16 || fmspc.length !== 6 || ppid.length !== 16) throw new FormatError("the PCK certificate is not of the expected form");
  return { ppid, fmspc: bytesToHex(fmspc), cpu, pce: big(value(tcb, "0211", TAG.integer)) };
}

const object = (value: Json | undefined, what: string): JsonObject => {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new FormatError(`${what} is no object`);
  return value;
};

const raw = (value: Json | undefined, what: string): Uint8Array => {
  const digits = text(value, what);
  if (!/^(?:[0-9a-f]{2})*$/i.test(digits)) throw new FormatError(`${what} is not hex`);
  return hexToBytes(digits.toLowerCase());
};

function seconds(value: Json | undefined, what: string): number {
  const time = Date.parse(text(value, what)) / 1000;
  if (!Number.isFinite(time)) throw new FormatError(`${what} is no time`);
  return time;
}

function inForce(from: number, to: number, now: number, what: string): void {
  const day = (time: number) => new Date(Math.min(time, 8.64e12) * 1000).toISOString().slice(0, 10);
  if (now < from || now > to) throw new CollateralError(`${what} is of ${day(from)} to ${day(to)}, not of ${day(now)}`);
}

/** A revocation list of this authority. */
function listOf(collateral: JsonObject, key: string, issuer: Certificate, now: number): Revoked {
  const found = revocationList(raw(collateral[key], key));
  if (!same(found.issuer, issuer.subject) || !verified(found.signature, "der", found.signed, issuer.key)) {
    throw new FormatError(`${key} is not signed by the authority that it is about`);
  }
  inForce(found.thisUpdate, found.nextUpdate - 1, now, key);
  return found;
}

/** JSON of Intel's, signed by a certificate that the root issued and has not revoked. */
function statement(collateral: JsonObject, key: string, root: Certificate, revoked: Revoked, now: number): JsonObject {
  const [signer] = pem(text(collateral[`${key}_issuer_chain`], `${key}_issuer_chain`));
  const said = text(collateral[key], key);
  const holds =
    signer !== undefined &&
    !authority(signer).is &&
    issued(signer, root) &&
    verified(raw(collateral[`${key}_signature`], `${key}_signature`), "compact", new TextEncoder().encode(said), signer.key);
  if (!holds) throw new FormatError(`${key} is not signed under the quote's root`);
  if (!valid(signer, now)) throw new CollateralError(`the certificate of ${key} is out of date`);
  if (revoked.serials.has(signer.serial)) throw new CollateralError(`the certificate of ${key} is revoked`);
  const parsed = object(parseJson(said), key);
  inForce(seconds(parsed["issueDate"], "issueDate"), seconds(parsed["nextUpdate"], "nextUpdate"), now, key);
  return parsed;
}

const svn = (value: Json): number => integer(object(value, "a component")["svn"], "svn");

/** The first of the levels that the machine reaches; levels stand from the highest down. */
function reached(levels: JsonObject[], meets: (tcb: JsonObject) => boolean, what: string): { status: string; advisories: Json[] } {
  const level = levels.find((it) => meets(object(it["tcb"], "tcb")));
  if (!level) throw new FormatError(`the ${what} is below every level that Intel names`);
  const advisories = level["advisoryIDs"];
  return { status: text(level["tcbStatus"], "tcbStatus"), advisories: advisories === undefined ? [] : list(advisories, "advisoryIDs") };
}

const levelsOf = (value: JsonObject): JsonObject[] => list(value["tcbLevels"], "tcbLevels").map((it) => object(it, "a level"));

/** Highest first, as Intel's own library orders them before it looks. */
function ordered(levels: JsonObject[]): JsonObject[] {
  const rank = (level: JsonObject) => {
    const tcb = object(level["tcb"], "tcb");
    return [...list(tcb["sgxtcbcomponents"], "components").map(svn), integer(tcb["pcesvn"], "pcesvn"), ...list(tcb["tdxtcbcomponents"], "components").map(svn)];
  };
  return levels.map((level) => ({ level, rank: rank(level) })).sort((a, b) => {
    const index = a.rank.findIndex((value, at) => value !== b.rank[at]);
    return index < 0 ? 0 : (b.rank[index] ?? 0) - (a.rank[index] ?? 0);
  }).map(({ level }) => level);
}

/** Whether each byte is the expected one where the mask says so. */
function masked(have: Uint8Array, expected: Json | undefined, mask: Json | undefined, what: string): boolean {
  const [want, bits] = [raw(expected, what), raw(mask, what)];
  return want.length === have.length && bits.length === have.length && have.every((byte, at) => ((byte ^ (want[at] ?? 0)) & (bits[at] ?? 0)) === 0);
}

/** The module's identity by its version, which is the second byte of the TCB; null for the first modules. */
function moduleOf(info: JsonObject, tcb: Uint8Array): JsonObject | null {
  const version = tcb[1] ?? 0;
  if (version === 0) return null;
  const name = `TDX_${version.toString(16).padStart(2, "0")}`.toUpperCase();
  const identities = info["tdxModuleIdentities"] === undefined ? [] : list(info["tdxModuleIdentities"], "tdxModuleIdentities");
  const found = identities.map((it) => object(it, "a module")).find(({ id }) => String(id).toUpperCase() === name);
  if (!found) throw new FormatError(`Intel names no TDX module ${name}`);
  return found;
}

/** What is wrong with a level: nothing, where it is up to date and no advisory is open. */
function open(level: { status: string; advisories: Json[] }): string[] {
  return [...(level.status === "UpToDate" ? [] : [level.status]), ...level.advisories.map(String)];
}

/** Machine and TDX module, for one of the TCBs that a quote states. */
function platform(info: JsonObject, own: Machine, tcb: Uint8Array): string[] {
  const module = moduleOf(info, tcb);
  const skip = module ? 2 : 0; // the module's own part is judged by its identity
  const level = reached(ordered(levelsOf(info)), (needs) => {
    const [cpu, tdx] = [list(needs["sgxtcbcomponents"], "components"), list(needs["tdxtcbcomponents"], "components")];
    if (cpu.length !== 16 || tdx.length !== 16) throw new FormatError("a level has not 16 components");
    return (
      cpu.every((it, at) => (own.cpu[at] ?? 0) >= svn(it)) &&
      own.pce >= integer(needs["pcesvn"], "pcesvn") &&
      tdx.every((it, at) => at < skip || (tcb[at] ?? 0) >= svn(it))
    );
  }, "machine");
  if (!module) return open(level);
  return [...open(level), ...open(reached(levelsOf(module), ({ isvsvn }) => (tcb[0] ?? 0) >= integer(isvsvn, "isvsvn"), "TDX module"))];
}

function requireModule(info: JsonObject, quote: Quote): void {
  const named = moduleOf(info, part(quote, "tcb")) ?? object(info["tdxModule"], "tdxModule");
  const attributes = part(quote, "moduleAttributes");
  const mask = raw(named["attributesMask"], "attributesMask");
  const holds =
    bytesToHex(part(quote, "moduleSigner")) === text(named["mrsigner"], "mrsigner").toLowerCase() &&
    masked(attributes, named["attributes"], named["attributesMask"], "the module's attributes") &&
    attributes.every((byte, at) => (byte & ~(mask[at] ?? 0)) === 0);
  if (!holds) throw new FormatError("the TDX module is not one of Intel's");
}

/** SGX's report of the quoting enclave: bytes of its fields, from and to. */
const ENCLAVE = { miscselect: [16, 20], attributes: [48, 64], signer: [128, 160], product: 256, version: 258 } as const;

function enclave(identity: JsonObject, report: Uint8Array): string[] {
  const number = (at: number) => (report[at] ?? 0) + 256 * (report[at + 1] ?? 0);
  const attributes = report.subarray(...ENCLAVE.attributes);
  const holds =
    identity["id"] === "TD_QE" &&
    (identity["version"] === 2 || identity["version"] === 3) &&
    bytesToHex(report.subarray(...ENCLAVE.signer)) === text(identity["mrsigner"], "mrsigner").toLowerCase() &&
    number(ENCLAVE.product) === integer(identity["isvprodid"], "isvprodid") &&
    ((attributes[0] ?? 0) & 2) === 0 && // debug
    masked(report.subarray(...ENCLAVE.miscselect), reversed(identity["miscselect"]), reversed(identity["miscselectMask"]), "miscselect") &&
    masked(attributes, identity["attributes"], identity["attributesMask"], "the enclave's attributes");
  if (!holds) throw new FormatError("the quoting enclave is not Intel's");
  return open(reached(levelsOf(identity), ({ isvsvn }) => number(ENCLAVE.version) >= integer(isvsvn, "isvsvn"), "quoting enclave"));
}

/** Intel writes this word of 32 bits as a number. */
const reversed = (value: Json | undefined): string => bytesToHex(raw(value, "miscselect").reverse());

/** Attributes of the TD: nobody debugs, profiles or moves it, and SEPT_VE_DISABLE is set. Bits by place. */
const ATTRIBUTE = { septVeDisable: 28n, serviceTds: 17n, migratable: 29n } as const;
const range = (from: number, to: number) => ((1n << BigInt(to - from + 1)) - 1n) << BigInt(from);
/** Debug, profiling, what the ABI reserves, migration. */
const FORBIDDEN = range(0, 15) | range(23, 26) | range(32, 61) | (1n << ATTRIBUTE.migratable);

function requireConfidential(quote: Quote): void {
  const word = BigInt(`0x${bytesToHex(part(quote, "attributes").slice().reverse())}`);
  const services = part(quote, "serviceTd").some((byte) => byte !== 0) || (word >> ATTRIBUTE.serviceTds) & 1n;
  if (word & FORBIDDEN || services || !((word >> ATTRIBUTE.septVeDisable) & 1n)) {
    throw new FormatError("the VM can be debugged, profiled or moved");
  }
}

/** Judges machine, module and quoting enclave as of `now`. Throws {@link CollateralError} or {@link FormatError} with the reason. */
export function appraise(quote: Quote, signed: Signed, source: Json | undefined, now: number): Appraised {
  const collateral = object(source, "collateral");
  const [pck, middle, root] = signed.chain;
  const revoked = listOf(collateral, "root_ca_crl", root, now);
  const machines = listOf(collateral, "pck_crl", middle, now);
  if (revoked.serials.has(root.serial) || revoked.serials.has(middle.serial) || machines.serials.has(pck.serial)) {
    throw new CollateralError("the machine's certificate is revoked");
  }
  const info = statement(collateral, "tcb_info", root, revoked, now);
  const identity = statement(collateral, "qe_identity", root, revoked, now);
  const own = machine(pck);
  if (info["id"] !== "TDX" || integer(info["version"], "version") < 3) throw new FormatError("the TCB info is not of TDX");
  if (own.fmspc !== text(info["fmspc"], "fmspc").toLowerCase()) throw new FormatError("the TCB info is of another kind of machine");
  requireModule(info, quote);
  requireConfidential(quote);
  const current = part(quote, "currentTcb");
  const found = [
    ...platform(info, own, part(quote, "tcb")),
    ...(current.length ? platform(info, own, current) : []),
    ...enclave(identity, signed.enclave),
  ];
  if (found.length) throw new FormatError(`the machine is not up to date: ${[...new Set(found)].join(", ")}`);
  const evaluation = (of: JsonObject) => integer(of["tcbEvaluationDataNumber"], "tcbEvaluationDataNumber");
  return { ppid: own.ppid, evaluation: Math.min(evaluation(info), evaluation(identity)) };
}
