// A proposal made from the recipe's file: terms for the contract's current era, and a link that owners open.
import { useEffect, useState } from "preact/hooks";
import type { Hex as HexValue } from "viem";
import { get, useLoaded } from "../api/client";
import type { AppState, Kms } from "../api/types";
import { ZERO_HASH } from "../format/hex";
import { termsToLink } from "../format/link";
import { epsilonText } from "../format/loss";
import { idList, proposalId, termsJson } from "../format/terms";
import type { Terms } from "../format/typed";
import { t } from "../i18n";
import { link } from "../route";
import { Card, Facts, Hex, Missing, Notice, save } from "../ui/basics";
import { copyText, date, decimal, label } from "../ui/text";
import { RecipeDrop, useCompose } from "./recipe-file";
import { RecipeWords } from "./recipe-words";

const DAY = 86_400;

export function ProposePage(props: { app: string }) {
  const { value, error } = useLoaded(`app ${props.app}`, () => get<AppState>(`v1/apps/${props.app}`));
  if (!value) return <Missing error={error} what={t("study")} />;
  return <Propose app={value} />;
}

function Propose(props: { app: AppState }) {
  const { app } = props;
  const given = useCompose(null, null);
  const [days, setDays] = useState(30);
  const [round, setRound] = useState(0);
  const [systems, limit] = useState<HexValue[]>([]);
  const registry = useLoaded("kms", () => get<Kms>("v1/kms"));
  const [start] = useState(() => Math.floor(Date.now() / 1000));
  const strangers = given.compose?.owners.filter((name) => !app.owners.some(({ owner }) => owner === name)) ?? [];
  return (
    <>
      <div class="page-head">
        <p class="crumbs"><a href={link.directory}>{t("nav.studies")}</a> / <a href={link.study(app.app)}>{label(app.name)}</a></p>
        <h1>{t("propose")}</h1>
        <p class="lead">{t("propose.lead")}</p>
      </div>
      <div class="columns approve">
        <Card title={t("approve.recipe")}>
          {given.compose && <RecipeWords compose={given.compose} />}
          <RecipeDrop given={given} label={t(given.compose ? "compose.give_other" : "compose.give")} />
        </Card>
        <Card title={t("terms")}>
          {!given.compose && <p class="quiet">{t("propose.file_first")}</p>}
          {strangers.length > 0 && <Notice tone="bad" alert>{t("propose.strangers", { names: strangers.join(", ") })}</Notice>}
          {given.compose && strangers.length === 0 && (
            <>
              <label class="field">
                <span>{t("propose.days")}</span>
                <input type="number" min={1} max={400} value={days} onInput={(event) => setDays(Number(event.currentTarget.value))} />
              </label>
              <label class="field">
                <span>{t("propose.round")}</span>
                <input type="number" min={0} max={4294967295} value={round} onInput={(event) => setRound(Number(event.currentTarget.value))} />
              </label>
              <fieldset>
                <legend>{t("propose.systems")}</legend>
                {registry.value?.kms.agent_systems.map((id) => (
                  <label key={id} class="check">
                    <input type="checkbox" checked={systems.includes(id)} onChange={() => limit(systems.includes(id) ? systems.filter((it) => it !== id) : [...systems, id])} />
                    <span class="mono">{id.slice(0, 18)}{"\u2026"}</span>
                  </label>
                ))}
                <p class="quiet small">{t("propose.systems_text")}</p>
              </fieldset>
              <Ready app={app} terms={made()} />
            </>
          )}
        </Card>
      </div>
    </>
  );

  function made(): Terms {
    const { compose } = given;
    if (!compose) throw new Error("no recipe");
    return {
      composeHash: compose.composeHash,
      recipeHash: compose.recipeHash,
      outputSchemaHash: compose.outputSchemaHash,
      epsilonPerRun: compose.epsilonPerRun,
      deltaPerRun: compose.deltaPerRun,
      epsilonBudget: compose.epsilonBudget,
      deltaBudget: compose.deltaBudget,
      expiry: BigInt(start + Math.min(400, Math.max(1, Math.floor(days) || 1)) * DAY),
      devices: ZERO_HASH,
      systems: idList(systems),
      era: BigInt(app.era),
      round: BigInt(Math.min(4_294_967_295, Math.max(0, Math.floor(round) || 0))),
    };
  }
}

function Ready(props: { app: AppState; terms: Terms }) {
  const { app, terms } = props;
  const id: HexValue = proposalId(terms);
  const [copied, copy] = useState(false);
  useEffect(() => copy(false), [id]);
  const target = `${link.proposal(app.app, id)}?terms=${termsToLink(terms)}`;
  return (
    <>
      <Facts
        rows={[
          [t("proposal"), <Hex value={id} ends={6} label={t("proposal")} />],
          [t("compose_hash"), <Hex value={terms.composeHash} ends={6} label={t("compose_hash")} />],
          [t("terms.per_run"), <span class="num">{"\u03b5"} {decimal(epsilonText(terms.epsilonPerRun))}</span>],
          [t("terms.in_all"), <span class="num">{"\u03b5"} {decimal(epsilonText(terms.epsilonBudget))}</span>],
          [t("terms.expiry"), date(Number(terms.expiry))],
        ]}
      />
      <p class="actions">
        <a class="button primary" href={target}>{t("propose.open")}</a>
        <button type="button" class="button" onClick={async () => copy(await copyText(new URL(target, location.href).href))}>
          {t("propose.copy")}
        </button>
        <button type="button" class="button quiet" onClick={() => save("terms.json", `${JSON.stringify(termsJson(terms), null, 2)}\n`)}>
          {t("propose.save")}
        </button>
      </p>
      <p class="quiet small">{t("propose.note")}</p>
      <p class="good-text" role="status">{copied && t("copied")}</p>
    </>
  );
}
