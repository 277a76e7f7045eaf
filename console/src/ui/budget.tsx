// Privacy budget: what each run debited, as steps towards the limit, and each owner's lifetime cap.
import type { Proposal, Run } from "../api/types";
import { t } from "../i18n";
import type { Study } from "../page/study";
import { many } from "./basics";
import { decimal, utc } from "./text";

const W = 460;
const H = 170;
const PAD = { left: 34, right: 12, top: 14, bottom: 24 };

export function BudgetChart(props: { study: Study; proposal: Proposal | null }) {
  const { study, proposal } = props;
  if (!proposal?.budget) return <p class="empty">{t("budget.none")}</p>;
  const runs = study.runs.filter(({ proposal_id }) => proposal_id === proposal.proposal_id);
  const budget = Number(proposal.budget.epsilon_budget);
  return (
    <>
      <div class="budget-head">
        <span class="num big">{decimal(proposal.budget.epsilon_left)} <small>{"\u03b5"} {t("budget.left")}</small></span>
        <span class="quiet num">{t("budget.spent", { spent: decimal(proposal.budget.epsilon_spent), budget: decimal(proposal.budget.epsilon_budget), runs: proposal.budget.runs_left })}</span>
      </div>
      <Steps runs={runs} budget={budget} />
      <div {...many(study.app.owners.length, t("budget.owners"))}><table class="plain-table">
        <caption>{t("budget.owners")}</caption>
        <thead class="sr"><tr><th scope="col">{t("owner")}</th><th scope="col">{t("budget.committed")}</th><th scope="col">{t("budget.cap")}</th></tr></thead>
        <tbody>
          {study.app.owners.map((owner) => {
            const cap = Number(owner.budget.epsilon_cap);
            const part = cap > 0 ? Math.min(1, Number(owner.budget.epsilon_committed) / cap) : 0;
            return (
              <tr key={owner.index}>
                <th scope="row">{owner.owner}</th>
                <td class="bar">
                  <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="6" rx="0" class="open" /><rect width={part * 100} height="6" class="full" /></svg>
                </td>
                <td class="right num">{decimal(owner.budget.epsilon_committed)} / {decimal(owner.budget.epsilon_cap)}</td>
              </tr>
            );
          })}
        </tbody>
      </table></div>
    </>
  );
}

/** Runs in order on the x axis, epsilon debited so far on the y axis. */
function Steps(props: { runs: Run[]; budget: number }) {
  const { runs, budget } = props;
  const slots = Math.max(3, runs.length + 1);
  const x = (slot: number) => PAD.left + ((W - PAD.left - PAD.right) * slot) / slots;
  const y = (value: number) => H - PAD.bottom - ((H - PAD.top - PAD.bottom) * value) / (budget || 1);
  let spent = 0;
  const steps = runs.map((run, index) => {
    const from = spent;
    spent += Number(run.epsilon);
    return { run, index, from, to: spent };
  });
  const path = steps.map(({ index, to }) => `V${y(to)}H${x(index + 2 > slots ? slots : index + 2)}`).join("");
  const summary = t("budget.chart", { runs: runs.length, spent: decimal(String(spent)), budget: decimal(String(budget)) });
  return (
    <svg class="chart" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={summary}>
      {[0, budget / 3, (2 * budget) / 3, budget].map((value) => (
        <g key={value}>
          <line x1={PAD.left} x2={W - PAD.right} y1={y(value)} y2={y(value)} class={value === budget ? "limit" : "grid"} />
          <text x={PAD.left - 6} y={y(value) + 4} text-anchor="end">{decimal(String(Math.round(value * 100) / 100))}</text>
        </g>
      ))}
      <text x={W - PAD.right} y={y(budget) - 5} text-anchor="end" class="strong">{t("budget.limit")}</text>
      <path d={`M${x(0)} ${y(0)}H${x(1)}${path}V${y(0)}Z`} class="area" />
      <path d={`M${x(0)} ${y(0)}H${x(1)}${path}`} class="step" />
      {steps.map(({ run, index, to }) => (
        <g key={run.run_id}>
          <circle cx={x(index + 1)} cy={y(to)} r="4" class={run.receipt ? "point" : "point hollow"}>
            <title>{`${t("run")} ${run.run_id} \u03b5 ${run.epsilon}, #${run.opened.block.number}, ${utc(run.opened.block.timestamp)}`}</title>
          </circle>
          <text x={x(index + 1)} y={H - 7} text-anchor="middle">{`#${run.opened.block.number}`}</text>
        </g>
      ))}
    </svg>
  );
}
