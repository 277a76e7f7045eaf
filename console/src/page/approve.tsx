// The approval page: what exactly is approved, at what cost, and the owner's word on it.
import { useMemo } from "preact/hooks";
import type { Hex as HexValue } from "viem";
import { proposalTone } from "../api/decision";
import { all, ApiError, apiUrl, get, useLoaded } from "../api/client";
import type { AppState, Kms, Proposal } from "../api/types";
import { termsFromLink } from "../format/link";
import { deltaText, epsilonText } from "../format/loss";
import { idList, parseTerms, termsJson } from "../format/terms";
import type { Terms } from "../format/typed";
import { ZERO_HASH } from "../format/hex";
import { t, tAny } from "../i18n";
import { recall } from "../recipes";
import { link } from "../route";
import { Card, Evidence, Facts, Hex, Missing, Notice, Pill } from "../ui/basics";
import { QuorumCard } from "../ui/quorum";
import { date, dateTime, decimal, label, utc } from "../ui/text";
import { review } from "../wallet/approve";
import { Decide } from "./decide";
import { HashMismatch, RecipeDrop, useCompose } from "./recipe-file";
import { RecipeDifference, RecipeWords } from "./recipe-words";

interface Loaded {
  app: AppState;
  /** Null while nobody has approved, rejected or revoked it. */
  proposal: Proposal | null;
  proposals: Proposal[];
  chainId: number;
  /** mr_system of the images that the registry lists. */
  systems: HexValue[];
}

async function load(app: string, id: string): Promise<Loaded> {
  const path = `v1/apps/${app}`;
  const [state, proposal, proposals, registry] = await Promise.all([
    get<AppState & { chain_id: number }>(path),
    get<Proposal>(`${path}/proposals/${id}`).catch((error: unknown) => {
      if (error instanceof ApiError && error.code === "proposal_unknown") return null;
      throw error;
    }),
    all<Proposal>(`${path}/proposals`, "proposals"),
    get<Kms>("v1/kms"),
  ]);
  return { app: state, proposal, proposals, chainId: state.chain_id, systems: registry.kms.agent_systems };
}

/** The terms on chain, or those in the link. */
function termsOf(proposal: Proposal | null, query: URLSearchParams): Terms | string | null {
  try {
    if (proposal?.terms) return parseTerms(proposal.terms);
    const text = query.get("terms");
    return text ? termsFromLink(text) : null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** What stands for a proposal that is not on chain yet. */
function notYet(app: AppState, id: string): Proposal {
  const { owners, threshold } = app;
  return {
    proposal_id: id as HexValue,
    terms: null,
    created: null,
    threshold_snapshot: null,
    quorum: { signed: 0, threshold, owners: owners.length },
    approvals: [],
    awaiting: owners.map(({ owner, index }) => ({ owner, index })),
    activated: null,
    superseded_by: null,
    revocation: null,
    rejections: [],
    budget: null,
    decision: { head: "proposal_unknown", confirmed: "proposal_unknown" },
  };
}

export function ApprovePage(props: { app: string; proposal: string; query: URLSearchParams }) {
  const { value, error } = useLoaded(`proposal ${props.app} ${props.proposal}`, () => load(props.app, props.proposal));
  if (!value) return <Missing error={error} what={t("proposal")} />;
  return <Approve {...value} id={props.proposal as HexValue} query={props.query} />;
}

function Approve(props: Loaded & { id: HexValue; query: URLSearchParams }) {
  const { app, id } = props;
  const known = props.proposal ?? notYet(app, id);
  const serialized = JSON.stringify(props.proposal?.terms ?? null) + (props.query.get("terms") ?? "");
  const terms = useMemo(() => termsOf(props.proposal, props.query), [serialized]);
  const usable = terms !== null && typeof terms !== "string" ? terms : null;
  const given = useCompose(usable?.composeHash ?? null, props.query.get("compose"));
  const reviewed = usable && given.compose ? review(id, usable, given.compose) : null;
  return (
    <>
      <div class="page-head">
        <p class="crumbs"><a href={link.directory}>{t("nav.studies")}</a> / <a href={link.study(app.app)}>{label(app.name)}</a></p>
        <h1>
          {t("proposal")} <span class="mono">{id.slice(0, 10)}{"\u2026"}</span>{" "}
          <Pill tone={proposalTone(known.decision.head)}>{tAny(`decision.${known.decision.head}`)}</Pill>
        </h1>
        <p class="lead">{t("approve.lead")}</p>
      </div>
      <div class="columns approve">
        <div>
          <Card title={t("approve.recipe")} note={<Step done={typeof reviewed === "object" && reviewed !== null} />}>
            {!usable && <NoTerms problem={typeof terms === "string" ? terms : null} />}
            {usable && reviewed === "compose_hash" && given.compose && (
              <HashMismatch have={given.compose.composeHash} want={usable.composeHash} />
            )}
            {usable && typeof reviewed === "string" && reviewed !== "compose_hash" && (
              <Notice tone="bad" alert title={t("approve.mismatch")}>{t(`mismatch.${reviewed}`)}</Notice>
            )}
            {usable && reviewed && typeof reviewed === "object" && (
              <>
                <Notice tone="good" title={t("compose.match")}>
                  {t("compose.match_text")} <Hex value={usable.composeHash} ends={8} label={t("compose_hash")} />
                </Notice>
                <RecipeWords compose={reviewed.compose} />
              </>
            )}
            {usable && (!reviewed || typeof reviewed === "string") && (
              <RecipeDrop given={given} label={t(given.compose ? "compose.give_other" : "compose.give")} />
            )}
          </Card>
          {usable && <Difference {...props} terms={usable} compose={given.compose} />}
        </div>
        <div>
          {usable && <TermsCard {...props} terms={usable} />}
          <QuorumCard app={app} proposal={known} />
          <Decide
            app={app}
            chainId={props.chainId}
            proposal={known}
            terms={usable}
            reviewed={typeof reviewed === "object" ? reviewed : null}
          />
        </div>
      </div>
    </>
  );
}

function Step(props: { done: boolean }) {
  return <Pill tone={props.done ? "good" : "wait"}>{t(props.done ? "compose.checked" : "compose.unchecked")}</Pill>;
}

function NoTerms(props: { problem: string | null }) {
  return (
    <Notice tone="bad" title={t("approve.no_terms")}>
      {t("approve.no_terms_text")} {props.problem && <span class="mono small">{props.problem}</span>}
    </Notice>
  );
}

function TermsCard(props: Loaded & { id: HexValue; terms: Terms }) {
  const { app, terms, proposal } = props;
  return (
    <Card title={t("terms")} note={proposal && <a href={apiUrl(`v1/apps/${app.app}/proposals/${props.id}`)}>{t("record")}</a>}>
      <div class="cost">
        <div><span class="num big">{decimal(epsilonText(terms.epsilonPerRun))}</span><span>{t("terms.per_run")}</span></div>
        <div><span class="num big">{decimal(epsilonText(terms.epsilonBudget))}</span><span>{t("terms.in_all")}</span></div>
        <div><span class="num big">{proposal?.budget ? decimal(proposal.budget.epsilon_left) : decimal(epsilonText(terms.epsilonBudget))}</span><span>{t("terms.left")}</span></div>
      </div>
      <Facts
        rows={[
          [t("terms.expiry"), <span title={utc(Number(terms.expiry))}>{date(Number(terms.expiry))}</span>],
          [t("terms.delta"), <span class="num">{t("terms.delta_of", { run: decimal(deltaText(terms.deltaPerRun)), budget: decimal(deltaText(terms.deltaBudget)) })}</span>],
          [t("terms.devices"), terms.devices === ZERO_HASH ? t("terms.any_device") : <Hex value={terms.devices} ends={6} label={t("terms.devices")} />],
          [t("terms.systems"), <Systems {...props} />],
          [t("compose_hash"), <Hex value={terms.composeHash} ends={6} label={t("compose_hash")} />],
          [t("proposal"), <Hex value={props.id} ends={6} label={t("proposal")} />],
          [t("contract"), <Hex value={app.app} label={t("contract")} />],
          [t("chain"), <span class="num">{props.chainId}</span>],
          [t("terms.round"), <span class="num">{t("terms.era_round", { era: Number(terms.era), round: Number(terms.round) })}</span>],
          proposal?.created ? [t("created"), <Evidence at={proposal.created} />] : null,
        ]}
      />
    </Card>
  );
}

/** Which images: by name where the hash is that of one, or of all, that the registry lists. */
function Systems(props: { terms: Terms; systems: HexValue[] }) {
  const { terms, systems } = props;
  if (terms.systems === ZERO_HASH) return <>{t("terms.any_system")}</>;
  const named = [...systems.map((id) => [id]), systems].find((ids) => idList(ids) === terms.systems);
  if (!named) return <>{t("terms.system_list")} <Hex value={terms.systems} ends={6} label={t("terms.systems")} /></>;
  return (
    <>
      {t("terms.system_only", { count: named.length })}
      <ul class="lines">{named.map((id) => <li key={id}><Hex value={id} ends={6} label="mr_system" /></li>)}</ul>
    </>
  );
}

const COMPARED = ["epsilon_per_run", "epsilon_budget", "delta_per_run", "delta_budget", "expiry", "devices", "systems", "compose_hash"];

function Difference(props: Loaded & { id: HexValue; terms: Terms; compose: ReturnType<typeof recall> }) {
  const before = props.proposals.findLast((it) => it.activated !== null && it.proposal_id !== props.id && it.terms);
  if (!before?.terms) {
    return <Card title={t("difference")}><p class="quiet">{t("difference.first")}</p></Card>;
  }
  const past: Record<string, unknown> = before.terms;
  const now = termsJson(props.terms);
  const changed = COMPARED.filter((key) => key in now && String(past[key]) !== String(now[key]));
  const old = recall(before.terms.compose_hash);
  const show = (key: string, value: unknown) =>
    key === "expiry" ? dateTime(Number(value))
    : value === ZERO_HASH ? t("difference.any")
    : String(value).startsWith("0x") ? <Hex value={String(value)} /> : decimal(String(value));
  const sameRecipe = before.terms.compose_hash === now["compose_hash"];
  return (
    <Card title={t("difference")} note={<a class="mono" href={link.proposal(props.app.app, before.proposal_id)}>{before.proposal_id.slice(0, 10)}{"\u2026"}</a>}>
      {changed.length === 0 ? <p>{t("difference.same_terms")}</p> : (
        <table>
          <thead><tr><th scope="col">{t("terms")}</th><th scope="col">{t("difference.before")}</th><th scope="col">{t("difference.now")}</th></tr></thead>
          <tbody>
            {changed.map((key) => (
              <tr key={key}>
                <th scope="row">{tAny(`field.${key}`)}</th>
                <td data-label={t("difference.before")}>{show(key, past[key])}</td>
                <td data-label={t("difference.now")}>{show(key, now[key])}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {sameRecipe ? <p>{t("difference.same_file")}</p> : props.compose && old ? (
        <RecipeDifference before={old} now={props.compose} />
      ) : (
        <Notice tone="wait">{t("difference.no_file")}</Notice>
      )}
    </Card>
  );
}
