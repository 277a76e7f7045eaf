// Records a finished `cohort dev demo --keep` for the walkthrough: node script/record.mjs FOLDER INDEXER_URL
// The rows and the exact table are of the public test data; everything else is what that run published or signed.
import { closeSync, openSync, readFileSync, readSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, indexer] = process.argv.slice(2);
if (!folder || !indexer) {
  console.error("usage: node script/record.mjs FOLDER INDEXER_URL");
  process.exit(2);
}
const text = (name) => readFileSync(join(folder, name), "utf8");
const json = (name) => JSON.parse(text(name));
const get = async (path) => (await fetch(new URL(path, indexer))).json();

/** The envelope and the first bytes of the sealed data, which stand behind it (docs/spec/sealed-dataset.md). */
function sealed(name, bytes) {
  const path = join(folder, name);
  const file = openSync(path, "r");
  const read = (at, length) => {
    const buffer = Buffer.alloc(length);
    readSync(file, buffer, 0, length, at);
    return buffer;
  };
  const size = parseInt(read(124, 11).toString(), 8);
  const envelope = JSON.parse(read(512, size).toString());
  const data = 512 + Math.ceil(size / 512) * 512 + 512;
  const ciphertext = read(data, bytes).toString("hex");
  closeSync(file);
  return { envelope, ciphertext, size: statSync(path).size };
}

const result = json("result.json");
const app = `v1/apps/${result.app}`;
const { envelope, ciphertext, size } = sealed("sealed/hospital-A.tar", 960);
const csv = readFileSync(new URL("../../test/data/heart-disease/heart-disease-four-hospitals.csv", import.meta.url), "utf8").trim().split("\n");
const [{ datasets }, proposal, { events }] = await Promise.all([
  get(`${app}/datasets`), get(`${app}/proposals/${result.run.proposal_id}`), get(`${app}/timeline`),
]);
const log = text("release-log.jsonl").trim().split("\n").map((line) => JSON.parse(line).entry.record);
const { enc, ...header } = envelope;
const recorded = {
  sealed: { envelope: { ...header, enc: `${enc.slice(0, 34)}\u2026` }, ciphertext, size },
  datasets: datasets.map(({ owner, region, kind, records, dataset_id }) => ({ owner, region, kind, records, dataset_id })),
  approvals: proposal.approvals.map(({ owner, by_signature, at }) => ({ owner, by_signature, block: at.block.number })),
  quorum: proposal.quorum,
  revocation: proposal.revocation && { owner: proposal.revocation.owner, block: proposal.revocation.at.block.number },
  // Only what a person is told; repeated tries while a block settles are left out.
  releases: log
    .filter(({ code }) => ["no_quorum", "owner_not_approved", "allow", "proposal_revoked"].includes(code))
    .map(({ code, datasets: asked }) => ({ code, owners: asked.map(({ owner }) => owner) })),
  opened: events.find(({ kind, args }) => kind === "run_opened" && args.run_id === result.receipt.run_id)?.block.number,
  result,
  exact: json("exact.json"),
  rows: { header: csv[0].split(","), lines: csv.slice(1, 7).map((line) => line.split(",")), total: csv.length - 1 },
};
writeFileSync(new URL("../public/walkthrough.json", import.meta.url), `${JSON.stringify(recorded)}\n`);
