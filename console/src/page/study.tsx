// One consortium: topology, quorum, budget, datasets, runs with receipts, and everything that happened.
import { canClose, leading, proposalTone } from "../api/decision";
import { all, apiUrl, get, useLoaded } from "../api/client";
import type { AppState, Cohort, Dataset, Event, Proposal, Run } from "../api/types";
import { t, tAny } from "../i18n";
import { link } from "../route";
import { BudgetChart } from "../ui/budget";
import { Card, Evidence, Facts, Hex, Missing, Pill } from "../ui/basics";
import { QuorumCard } from "../ui/quorum";
import { bytes, compact, country, decimal, label, number } from "../ui/text";
import { Timeline } from "../ui/timeline";
import { Topology } from "../ui/topology";

export interface Study {
  app: AppState;
  proposals: Proposal[];
  datasets: Dataset[];
  runs: Run[];
  events: Event[];
}

export async function loadStudy(app: string): Promise<Study> {
  const path = `v1/apps/${app}`;
  const [state, proposals, datasets, runs, events] = await Promise.all([
    get<AppState>(path),
    all<Proposal>(`${path}/proposals`, "proposals"),
    all<Dataset>(`${path}/datasets`, "datasets"),
    all<Run>(`${path}/runs`, "runs"),
    all<Event>(`${path}/timeline`, "events"),
  ]);
  return { app: state, proposals, datasets, runs, events };
}

export function StudyPage(props: { app: string }) {
  const { value, error } = useLoaded(`study ${props.app}`, () => loadStudy(props.app));
  if (!value) return <Missing error={error} what={t("study")} />;
  const proposal = leading(value.proposals);
  const live = proposal?.decision.head === "allow" && proposal.decision.confirmed === "allow";
  return (
    <>
      <Head study={value} live={live} />
      <Card title={t("topology")} note={t("topology.note")} class="wide">
        <Topology study={value} proposal={proposal} />
      </Card>
      <div class="columns">
        <div>
          {proposal ? (
            <QuorumCard app={value.app} proposal={proposal} />
          ) : (
            <Card title={t("quorum")}><p class="quiet">{t("quorum.none")}</p></Card>
          )}
          <p class="actions">
            {proposal && <a class="button" href={link.proposal(props.app, proposal.proposal_id)}>{t("open_proposal")}</a>}
            <a class="button quiet" href={link.propose(props.app)}>{t("propose")}</a>
          </p>
        </div>
        <Card title={t("budget")} note={t("budget.note")}>
          <BudgetChart study={value} proposal={proposal} />
        </Card>
      </div>
      <Datasets study={value} />
      <Runs study={value} />
      <Proposals study={value} />
      <Card title={t("timeline")} note={<a href={apiUrl(`v1/apps/${props.app}/timeline`)}>{t("record")}</a>}>
        <Timeline study={value} />
      </Card>
    </>
  );
}

function Head(props: { study: Study; live: boolean }) {
  const { app } = props.study;
  const places = [...new Set(app.owners.map(({ jurisdiction }) => jurisdiction))];
  return (
    <div class="page-head">
      <p class="crumbs"><a href={link.directory}>{t("nav.studies")}</a> / {label(app.sector)}</p>
      <h1>
        {label(app.name)} <Pill tone={props.live ? "good" : "wait"}>{t(props.live ? "cohort.live" : "cohort.forming")}</Pill>
      </h1>
      <Facts
        rows={[
          [t("contract"), <Hex value={app.app} label={t("contract")} />],
          [t("owners"), <span class="num">{app.owners.length}</span>],
          [t("records"), <span class="num">{number(app.records)}</span>],
          [t("jurisdictions"), places.map(country).join(", ")],
          app.kms_root && [t("kms_root"), <Hex value={app.kms_root} label={t("kms_root")} />],
          [t("registered"), <Evidence at={app.registered} record={`v1/apps/${app.app}`} />],
        ]}
      />
    </div>
  );
}

function Datasets(props: { study: Study }) {
  const { app, datasets } = props.study;
  const current = datasets.filter(({ superseded_by }) => !superseded_by);
  return (
    <Card title={t("datasets")} note={t("datasets.note")}>
      {current.length === 0 && <p class="empty">{t("datasets.none")}</p>}
      <ul class="tiles">
        {current.map((dataset) => (
          <li key={dataset.dataset_id}>
            <a href={link.dataset(app.app, dataset.dataset_id)}>
              <span class="eyebrow">{dataset.region} <span class="dotsep">{t("sealed")}</span></span>
              <strong>{dataset.owner}</strong>
              <span class="num big">{dataset.records ? compact(dataset.records) : t("withheld")} <small>{dataset.kind}</small></span>
              <span class="sub num">{bytes(dataset.size_bytes)}</span>
            </a>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Runs(props: { study: Study }) {
  const { app, runs, proposals } = props.study;
  return (
    <Card title={t("runs")} note={t("runs.note")}>
      {runs.length === 0 && <p class="empty">{t("runs.none")}</p>}
      <ul class="runs">
        {[...runs].reverse().map((run) => (
          <li key={run.run_id}>
            <div class="run-head">
              <Hex value={run.run_id} ends={6} label={t("run")} />
              <RunState run={run} proposals={proposals} />
              <span class="num">{"\u03b5"} {decimal(run.epsilon)}</span>
              <span class="quiet">{run.participants.map(({ owner }) => owner).join(", ")}</span>
            </div>
            <Facts
              rows={[
                [t("run.opened"), <Evidence at={run.opened} record={`v1/apps/${app.app}/runs/${run.run_id}`} />],
                [t("analyst"), <Hex value={run.analyst} label={t("analyst")} />],
                run.receipt && [t("receipt"), <Evidence at={run.receipt.posted} record={`v1/apps/${app.app}/runs/${run.run_id}`} />],
                run.receipt && [t("output_hash"), <Hex value={run.receipt.receipt.output_hash} ends={6} label={t("output_hash")} />],
                run.receipt && [t("privacy_proof"), t(run.receipt.receipt.privacy_proof ? "proof.proved" : "proof.declared")],
                run.equivocations.length > 0 ? [t("equivocations"), <Pill tone="bad">{run.equivocations.length}</Pill>] : null,
              ]}
            />
          </li>
        ))}
      </ul>
      <p class="actions"><a class="button quiet" href={link.verify}>{t("verify_result")}</a></p>
    </Card>
  );
}

function RunState(props: { run: Run; proposals: Proposal[] }) {
  const { run, proposals } = props;
  if (run.receipt) return <Pill tone="good">{t("run.closed")}</Pill>;
  return canClose(proposals, run) ? <Pill tone="wait">{t("run.open")}</Pill> : <Pill tone="bad">{t("run.stopped")}</Pill>;
}

function Proposals(props: { study: Study }) {
  const { app, proposals } = props.study;
  if (proposals.length < 1) return null;
  return (
    <Card title={t("proposals")}>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">{t("proposal")}</th>
              <th scope="col" class="right">{t("signed")}</th>
              <th scope="col" class="right">{t("epsilon_left")}</th>
              <th scope="col">{t("status")}</th>
              <th scope="col">{t("created")}</th>
            </tr>
          </thead>
          <tbody>
            {[...proposals].reverse().map((proposal) => (
              <tr key={proposal.proposal_id}>
                <td data-label={t("proposal")}><a class="mono" href={link.proposal(app.app, proposal.proposal_id)}>{proposal.proposal_id.slice(0, 14)}{"\u2026"}</a></td>
                <td class="right num" data-label={t("signed")}>{proposal.quorum.signed} / {proposal.quorum.owners}</td>
                <td class="right num" data-label={t("epsilon_left")}>{decimal(proposal.budget?.epsilon_left ?? "\u2013")}</td>
                <td data-label={t("status")}><Pill tone={proposalTone(proposal.decision.head)}>{tAny(`decision.${proposal.decision.head}`)}</Pill></td>
                <td data-label={t("created")}>{proposal.created && <Evidence at={proposal.created} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

export type { Cohort };
