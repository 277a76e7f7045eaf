// A result file, re-checked in this browser.
import { useRef, useState } from "preact/hooks";
import { useEndpoints } from "../api/origins";
import { endpoint, troubleOf, type Trouble } from "../chain/provider";
import { FormatError, parseJson, utf8 } from "../format/json";
import { parseRehearsal, REHEARSAL, type Rehearsal } from "../format/rehearsal";
import { formatOf, readResult, type ResultFile } from "../format/result";
import { epsilonText } from "../format/loss";
import { t, tAny } from "../i18n";
import { link } from "../route";
import { useStore } from "../store";
import { troubleText } from "../ui/action";
import { Card, Facts, FileDrop, Hex, Notice, Pill } from "../ui/basics";
import { Payload } from "../ui/payload";
import { bytes, dateTime, decimal, number } from "../ui/text";
import { Choose } from "../ui/wallet";
import { offline } from "../verify/offline";
import { online } from "../verify/online";
import { Report, type Check, type Verdict } from "../verify/report";
import { session } from "../wallet/wallets";

export interface Verified {
  file: ResultFile;
  checks: Check[];
  /** Why the chain could not be asked. */
  trouble: Trouble | null;
  /** Through what the chain was asked. */
  through: string | null;
}

export function VerifyPage() {
  const [source, give] = useState<string | null>(null);
  const [shown, show] = useState<Verified | Rehearsal | Error | null>(null);
  const [busy, work] = useState(false);
  const newest = useRef(0);
  const current = useStore(session);
  const endpoints = useEndpoints();

  /** `through`: the wallet, an endpoint's URL, or null for no chain. */
  const check = async (text: string, through: "wallet" | (string & {}) | null) => {
    newest.current += 1;
    const mine = newest.current; // of two files only the second counts, however long the first takes
    work(true);
    const url = through === "wallet" ? null : through;
    const found = await open(text, url, through === "wallet" ? current : null).catch((error: Error) => error);
    if (mine !== newest.current) return;
    show(found);
    work(false);
  };
  const take = async (file: File | undefined) => {
    if (!file) return;
    try {
      if (file.size > MOST_BYTES) throw new FormatError(t("verify.too_large", { size: bytes(MOST_BYTES) }));
      const text = utf8(new Uint8Array(await file.arrayBuffer()));
      give(text);
      await check(text, current ? "wallet" : null);
    } catch (error) {
      show(error as Error);
    }
  };
  const verified = shown && "checks" in shown ? shown : null;

  return (
    <>
      <div class="page-head">
        <h1>{t("verify")}</h1>
        <p class="lead">{t("verify.lead")}</p>
      </div>
      <FileDrop label={t(verified ? "verify.give_other" : "verify.give")} onFiles={([file]) => void take(file)} />
      {shown instanceof Error && <Notice tone="bad" alert title={t("verify.unusable")}><span class="mono small">{shown.message}</span></Notice>}
      <div aria-live="polite">{busy && <p class="busy"><span class="spin" aria-hidden="true" />{t("verify.busy")}</p>}</div>
      {shown && "rowsPerOwner" in shown && <Rehearsed record={shown} />}
      {verified && source && (
        <>
          <Summary verified={verified} />
          <div class="columns verify">
            <Card title={t("verify.checks")} note={verified.through ?? t("verify.offline")}>
              <Checks checks={verified.checks} />
              {verified.trouble && <Notice tone="bad" alert title={t("verify.chain_failed")}>{troubleText(verified.trouble)}</Notice>}
              <div class="ask">
                <h3>{t("verify.ask_chain")}</h3>
                <p class="quiet">{t("verify.ask_chain_text")}</p>
                {current ? (
                  <p class="actions"><button type="button" class="button" onClick={() => check(source, "wallet")}>{t("verify.through", { name: current.wallet.info.name })}</button></p>
                ) : <Choose />}
                {endpoints.map((origin) => (
                  <p class="actions" key={origin}><button type="button" class="button" onClick={() => check(source, origin)}>{t("verify.through", { name: origin })}</button></p>
                ))}
              </div>
            </Card>
            <div>
              <Card title={t("verify.result")}><Payload payload={verified.file.payload} /></Card>
              <About file={verified.file} />
            </div>
          </div>
        </>
      )}
    </>
  );
}

/** Longer than any result, which has at most 64 KiB of payload. */
const MOST_BYTES = 16_000_000;

async function open(text: string, url: string | null, current: ReturnType<typeof session.get>): Promise<Verified | Rehearsal> {
  const value = parseJson(text);
  return formatOf(value) === REHEARSAL ? parseRehearsal(value) : verify(readResult(value), url, current);
}

async function verify(file: ResultFile, url: string | null, current: ReturnType<typeof session.get>): Promise<Verified> {
  const report = new Report();
  await offline(file, report);
  const provider = url ? endpoint(url) : current?.wallet.provider;
  if (!provider) return { file, checks: report.checks, trouble: null, through: null };
  const before = report.checks.length;
  try {
    await online(provider, file, report);
    return { file, checks: report.checks, trouble: null, through: url ?? current?.wallet.info.name ?? null };
  } catch (error) {
    report.checks.length = before; // half an answer of the chain is none
    return { file, checks: report.checks, trouble: troubleOf(error), through: null };
  }
}

/** Synthetic numbers, which must not be taken for a result. */
function Rehearsed(props: { record: Rehearsal }) {
  const { record } = props;
  return (
    <>
      <Notice tone="wait" alert title={t("rehearsal")}><p>{t("rehearsal.text")}</p></Notice>
      <div class="columns verify">
        <Card title={t("verify.about")}>
          <Facts
            rows={[
              [t("compose_hash"), <Hex value={record.composeHash} ends={6} label={t("compose_hash")} />],
              [t("rehearsal.rows"), <span class="num">{number(record.rowsPerOwner)}</span>],
              [t("rehearsal.seconds"), <span class="num">{number(record.seconds)} s</span>],
              [t("rehearsal.signed"), <Hex value={record.analyst} ends={6} label={t("analyst")} />],
            ]}
          />
        </Card>
        <Card title={t("rehearsal.output")}><Payload payload={record.payload} /></Card>
      </div>
    </>
  );
}

function Summary(props: { verified: Verified }) {
  const { checks, through, file } = props.verified;
  const count = (verdict: Verdict) => checks.filter((check) => check.verdict === verdict).length;
  const failed = count("failed");
  const values = { ok: count("ok"), failed, skipped: count("skipped") };
  const tone = failed ? "bad" : through ? "good" : "wait";
  return (
    <Notice tone={tone} alert title={t(failed ? "verify.bad" : through ? "verify.good" : "verify.self")}>
      <p>{t("verify.count", values)}</p>
      {!failed && !through && <p>{t("verify.self_text")}</p>}
      {!failed && through && <p>{t("verify.app_text")} <Hex value={file.place.app} ends={6} label={t("contract")} /></p>}
      {file.attestation === "development" && <p>{t("verify.development")}</p>}
    </Notice>
  );
}

export function Checks(props: { checks: Check[] }) {
  return (
    <ol class="checks">
      {props.checks.map((check, index) => (
        <li key={index} class={check.verdict}>
          <span class="verdict">{t(`verdict.${check.verdict}`)}</span>
          <div>
            <strong>{tAny(`check.${check.name}`)}</strong>
            <p>{tAny(`check.${check.name}.${check.verdict === "skipped" ? "skipped" : "text"}`)}</p>
            <Detail text={check.detail} />
          </div>
        </li>
      ))}
    </ol>
  );
}

function Detail(props: { text: string }) {
  return /^0x[0-9a-f]{40,}$/.test(props.text) ? <Hex value={props.text} ends={8} /> : <span class="mono small">{props.text}</span>;
}

function About(props: { file: ResultFile }) {
  const { file } = props;
  return (
    <Card title={t("verify.about")}>
      <Facts
        rows={[
          [t("contract"), <a class="mono" href={link.study(file.place.app)}>{file.place.app.slice(0, 14)}{"\u2026"}</a>],
          [t("chain"), <span class="num">{file.place.chainId}</span>],
          [t("run"), <Hex value={file.receipt.runId} ends={6} label={t("run")} />],
          [t("proposal"), <a class="mono" href={link.proposal(file.place.app, file.run.proposalId)}>{file.run.proposalId.slice(0, 14)}{"\u2026"}</a>],
          ["\u03b5", <span class="num">{decimal(epsilonText(file.receipt.epsilon))}</span>],
          [t("privacy_proof"), t(file.receipt.privacyProof ? "proof.proved" : "proof.declared")],
          [t("verify.produced"), dateTime(Number(file.receipt.producedAt))],
          [t("verify.attestation"), <Pill tone={file.attestation === "intel" ? "good" : "wait"}>{file.attestation}</Pill>],
          [t("verify.inputs"), file.inputs.map(({ owner }) => owner).join(", ")],
          [t("receipt"), <span><span class="num">#{file.position.blockNumber}</span> <Hex value={file.position.transaction} label={t("transaction")} /></span>],
        ]}
      />
    </Card>
  );
}
