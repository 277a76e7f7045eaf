// The sealed-dataset card.
import { all, apiUrl, get, useLoaded } from "../api/client";
import type { AppState, Dataset } from "../api/types";
import { t } from "../i18n";
import { link } from "../route";
import { Card, Evidence, Facts, Hex, Missing, Pill } from "../ui/basics";
import { bytes, country, label, number } from "../ui/text";

interface Loaded {
  app: AppState;
  dataset: Dataset | null;
}

async function load(app: string, id: string): Promise<Loaded> {
  const [state, datasets] = await Promise.all([
    get<AppState>(`v1/apps/${app}`),
    all<Dataset>(`v1/apps/${app}/datasets`, "datasets"),
  ]);
  return { app: state, dataset: datasets.find(({ dataset_id }) => dataset_id === id) ?? null };
}

export function DatasetPage(props: { app: string; dataset: string }) {
  const { value, error } = useLoaded(`dataset ${props.dataset}`, () => load(props.app, props.dataset));
  if (!value) return <Missing error={error} what={t("dataset")} />;
  const { app, dataset } = value;
  if (!dataset) return <><h1>{t("dataset")}</h1><p class="empty">{t("dataset.unknown")}</p></>;
  const owner = app.owners.find(({ index }) => index === dataset.index);
  return (
    <>
      <div class="page-head">
        <p class="crumbs"><a href={link.directory}>{t("nav.studies")}</a> / <a href={link.study(app.app)}>{label(app.name)}</a></p>
        <h1>{t("dataset.title", { owner: dataset.owner ?? "\u2013" })}</h1>
      </div>
      <Card
        title={`${t("dataset")} \u00b7 ${dataset.owner}.tar`}
        class="narrow"
        note={<span class="num">{dataset.records ? t("dataset.rows", { rows: number(dataset.records) }) : t("withheld")}</span>}
      >
        <Facts
          rows={[
            ["owner", dataset.owner],
            ["analysis-app-id", <Hex value={app.app} ends={6} label="analysis-app-id" />],
            ["analysis-compose-hash", <Hex value={dataset.compose_hash} ends={6} label="analysis-compose-hash" />],
            ["wrap-key", <span class="mono">HKDF(kms, app, compose, owner)</span>],
            ["algo", "AES-256-GCM, X-Wing (X25519 + ML-KEM-768)"],
            ["dataset-id", <Hex value={dataset.dataset_id} ends={6} label="dataset-id" />],
            [t("dataset.region"), dataset.region],
            [t("dataset.kind"), dataset.kind],
            [t("dataset.size"), <span class="num">{bytes(dataset.size_bytes)}</span>],
            [t("registered"), <Evidence at={dataset.registered} record={`v1/apps/${app.app}/datasets`} />],
            dataset.superseded_by && [t("dataset.superseded"), <Hex value={dataset.superseded_by.dataset_id} ends={6} />],
          ]}
        />
        <p class="tagline">
          <Pill tone={dataset.superseded_by ? "bad" : "good"}>{t(dataset.superseded_by ? "dataset.superseded" : "sealed")}</Pill>
          {owner?.grades.map((grade) => <Pill key={grade} tone="plain">{grade}</Pill>)}
          {owner && <Pill tone="plain">{country(owner.jurisdiction)}</Pill>}
          <Pill tone="plain">never-exits-silo</Pill>
          <Pill tone="plain">recipe-bound</Pill>
        </p>
        <p class="quiet">{t("dataset.text")} <a href={apiUrl(`v1/apps/${app.app}/datasets`)}>{t("record")}</a></p>
      </Card>
    </>
  );
}
