// Five steps of a recorded development run, and what a central pipeline would see at each of them.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Hex as HexValue } from "viem";
import { get, type ApiError } from "../api/client";
import type { Json } from "../format/json";
import { parseResult } from "../format/result";
import { t, tAny, type Word } from "../i18n";
import { Facts, Hex, Missing, Notice, Pill } from "../ui/basics";
import { Payload } from "../ui/payload";
import { bytes, decimal, number } from "../ui/text";
import { offline } from "../verify/offline";
import { Report, type Check } from "../verify/report";
import { Checks } from "./verify";

/** What `script/record.mjs` writes. */
interface Recorded {
  sealed: { envelope: Record<string, unknown> & { content: { rows?: number } }; ciphertext: string; size: number };
  datasets: { owner: string; region: string; kind: string; records: number; dataset_id: HexValue }[];
  approvals: { owner: string; by_signature: boolean; block: number }[];
  quorum: { signed: number; threshold: number; owners: number };
  revocation: { owner: string; block: number } | null;
  releases: { code: string; owners: string[] }[];
  opened: number;
  result: { app: HexValue; payload: Json; receipt: { epsilon: string }; terms: { epsilon_budget: string; compose_hash: HexValue }; position: { block_number: number; transaction: HexValue } };
  exact: Json;
  rows: { header: string[]; lines: string[][]; total: number };
}

const STEPS = [1, 2, 3, 4, 5] as const;
type Step = (typeof STEPS)[number];

export function WalkthroughPage() {
  const [recorded, set] = useState<Recorded | null>(null);
  const [error, fail] = useState<ApiError | null>(null);
  const [step, go] = useState<Step>(1);
  const [on, turn] = useState(true);
  useEffect(() => void get<Recorded>("walkthrough.json").then(set, fail), []);
  if (!recorded) return <Missing error={error} what={t("nav.walkthrough")} />;
  return (
    <>
      <div class="page-head">
        <h1>{t("nav.walkthrough")}</h1>
        <p class="lead">{t("walk.lead")}</p>
      </div>
      <div class={`walk ${on ? "on" : "off"}`}>
        <div class="walk-bar">
          <p>
            <strong>{t(on ? "walk.on" : "walk.off")}</strong>
            <span class="quiet">{t(on ? "walk.on_text" : "walk.off_text")}</span>
          </p>
          <button type="button" role="switch" aria-checked={on} class="switch" onClick={() => turn(!on)}>
            <span class="knob" aria-hidden="true" /> dstack
          </button>
        </div>
        <ol class="walk-steps">
          {STEPS.map((index) => (
            <li key={index}>
              <button type="button" aria-current={index === step ? "step" : undefined} onClick={() => go(index)}>
                <span class="num">{index}</span> {t(`walk.${index}` as Word)}
              </button>
            </li>
          ))}
        </ol>
        <section class="walk-body" aria-live="polite" aria-labelledby="walk-title">
          <p class="eyebrow">{t("walk.step", { step, of: STEPS.length })}</p>
          <h2 id="walk-title">{t(`walk.${step}` as Word)}</h2>
          {on && <p>{t(`walk.${step}.text` as Word)}</p>}
          {on ? <On step={step} recorded={recorded} /> : <Off step={step} recorded={recorded} />}
          <Notice tone={on ? "good" : "bad"} title={t(on ? "walk.with" : "walk.without")}>{t(`walk.${step}.${on ? "with" : "without"}` as Word)}</Notice>
          <p class="actions">
            <button type="button" class="button" disabled={step === 1} onClick={() => go((step - 1) as Step)}>{t("walk.back")}</button>
            <button type="button" class="button primary" disabled={step === 5} onClick={() => go((step + 1) as Step)}>{t("walk.next")}</button>
          </p>
        </section>
      </div>
      <p class="quiet small">{t("walk.recorded")}</p>
    </>
  );
}

function On(props: { step: Step; recorded: Recorded }): ComponentChildren {
  const { recorded } = props;
  const { sealed, result } = recorded;
  switch (props.step) {
    case 1:
      return (
        <>
          <pre tabIndex={0}>{`$ cohort seal --owner hospital-A --in data/hospital-A.parquet\n-> wrap-key = HKDF(kms, app, compose, owner) derived (X-Wing, epoch 0)\n-> ./sealed/hospital-A.tar\n${sealed.envelope.content.rows} rows \u00b7 ${bytes(sealed.size)}`}</pre>
          <p>{t("walk.1.sees", { records: sealed.envelope.content.rows ?? "" })}</p>
          <pre class="cipher" tabIndex={0}>{sealed.ciphertext}</pre>
        </>
      );
    case 2:
      return (
        <>
          <Facts rows={[[t("compose_hash"), <Hex value={result.terms.compose_hash} ends={8} label={t("compose_hash")} />], [t("contract"), <Hex value={result.app} label={t("contract")} />]]} />
          <ul class="owners">
            {recorded.approvals.map((it) => (
              <li key={it.owner}>
                <strong>{it.owner}</strong>
                <span><Pill tone="good">{t(it.by_signature ? "owner.signed" : "owner.approved")}</Pill> <span class="num quiet">#{it.block}</span></span>
              </li>
            ))}
          </ul>
          <p class="num big">{recorded.quorum.signed} / {recorded.quorum.owners} <small>{t("quorum.needed", { threshold: recorded.quorum.threshold })}</small></p>
        </>
      );
    case 3:
      return (
        <ul class="owners">
          {recorded.releases.map((it, index) => (
            <li key={index}>
              <span>{t("walk.3.asked", { owners: it.owners.join(", ") })}</span>
              <Pill tone={it.code === "allow" ? "good" : "bad"}>{tAny(`walk.code.${it.code}`)}</Pill>
            </li>
          ))}
        </ul>
      );
    case 4:
      return (
        <>
          <p class="num">{t("walk.4.debit", { epsilon: decimal(result.receipt.epsilon), budget: decimal(result.terms.epsilon_budget), block: recorded.opened })}</p>
          <Payload payload={result.payload} />
        </>
      );
    case 5:
      return <Verified result={result} />;
  }
}

/** The recorded result, checked here and now. */
function Verified(props: { result: Recorded["result"] }) {
  const [checks, set] = useState<Check[] | null>(null);
  useEffect(() => {
    const report = new Report();
    void offline(parseResult(JSON.stringify(props.result)), report).then(() => set(report.checks));
  }, []);
  const { position } = props.result;
  return (
    <>
      <Facts rows={[[t("receipt"), <span><span class="num">#{position.block_number}</span> <Hex value={position.transaction} label={t("transaction")} /></span>]]} />
      {checks ? <Checks checks={checks} /> : <p class="quiet">{t("verify.busy")}</p>}
    </>
  );
}

function Off(props: { step: Step; recorded: Recorded }): ComponentChildren {
  const { recorded } = props;
  switch (props.step) {
    case 1:
    case 3:
      return <Rows recorded={recorded} />;
    case 2:
      return (
        <ul class="owners">
          {recorded.approvals.map((it) => (
            <li key={it.owner}><strong>{it.owner}</strong><Pill tone="bad">{t("walk.2.nobody")}</Pill></li>
          ))}
        </ul>
      );
    case 4:
      return (
        <>
          <p>{t("walk.4.exact")}</p>
          <Payload payload={recorded.exact} />
        </>
      );
    case 5:
      return <pre tabIndex={0}>{JSON.stringify(recorded.exact).slice(0, 420)}{"\u2026"}</pre>;
  }
}

/** What lies on the central machine. Public test data: no patient of today. */
function Rows(props: { recorded: Recorded }) {
  const { header, lines, total } = props.recorded.rows;
  return (
    <>
      <p>{t("walk.rows", { rows: number(total) })}</p>
      <div class="scroll" tabIndex={0} role="group" aria-label={t("walk.rows", { rows: number(total) })}>
        <table class="payload rows">
          <thead><tr>{header.map((name) => <th scope="col" key={name}>{name}</th>)}</tr></thead>
          <tbody>{lines.map((line) => <tr key={line[0]}>{line.map((value, index) => <td class="num" key={index}>{value}</td>)}</tr>)}</tbody>
        </table>
      </div>
    </>
  );
}
