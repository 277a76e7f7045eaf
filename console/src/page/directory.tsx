// The directory of cohorts: each against three criteria, from on-chain state.
import { useState } from "preact/hooks";
import { all, apiUrl, useLoaded } from "../api/client";
import type { Cohort, Met } from "../api/types";
import { t, tAny, type Word } from "../i18n";
import { link } from "../route";
import { Missing, Pill } from "../ui/basics";
import { compact, country, label, number } from "../ui/text";

type Criterion = keyof Cohort["criteria"];
const CRITERIA: Criterion[] = ["owners", "jurisdictions", "grades"];

export function Directory() {
  const { value, error } = useLoaded("cohorts", () => all<Cohort>("v1/cohorts", "cohorts"));
  const [wanted, want] = useState<Criterion[]>([]);
  const toggle = (criterion: Criterion) =>
    want(wanted.includes(criterion) ? wanted.filter((it) => it !== criterion) : [...wanted, criterion]);
  const shown = value?.filter(({ criteria }) => wanted.every((criterion) => criteria[criterion] === "match"));
  return (
    <>
      <div class="hero">
        <h1>{t("tagline")}</h1>
        <p class="lead">{t("directory.lead")}</p>
        {value && <Totals cohorts={value} />}
      </div>
      <section aria-labelledby="cohorts">
        <div class="section-head">
          <h2 id="cohorts">{t("directory.title")}</h2>
          <p class="sentence" role="group" aria-label={t("directory.filter")}>
            <span>{t("directory.show")}</span>
            {CRITERIA.map((criterion, index) => (
              <>
                {index > 0 && <span>{t("directory.and")}</span>}
                <button type="button" class="chip" aria-pressed={wanted.includes(criterion)} onClick={() => toggle(criterion)}>
                  {t(`criterion.${criterion}`)}
                </button>
              </>
            ))}
          </p>
        </div>
        {!shown ? <Missing part error={error} what={t("directory.title")} /> : <Table cohorts={shown} />}
        <p class="quiet small">{t("directory.note")} <a href={apiUrl("v1/cohorts")}>{t("record")}</a></p>
      </section>
    </>
  );
}

function Totals(props: { cohorts: Cohort[] }) {
  const sum = (of: (cohort: Cohort) => number) => props.cohorts.reduce((total, cohort) => total + of(cohort), 0);
  const totals: [string, string][] = [
    [number(props.cohorts.filter(({ status }) => status === "live").length), t("directory.live_studies")],
    [number(sum(({ owners }) => owners)), t("owners")],
    [compact(sum(({ records }) => records)), t("directory.sealed_records")],
    [number(sum(({ datasets }) => datasets)), t("datasets")],
  ];
  return (
    <dl class="totals">
      {totals.map(([value, name]) => <div key={name}><dt>{name}</dt><dd class="num">{value}</dd></div>)}
    </dl>
  );
}

function Table(props: { cohorts: Cohort[] }) {
  if (!props.cohorts.length) return <p class="empty">{t("directory.none")}</p>;
  return (
    <div class="scroll">
      <table class="cohorts">
        <thead>
          <tr>
            <th scope="col">{t("name")}</th>
            <th scope="col" class="right">{t("owners")}</th>
            <th scope="col" class="right">{t("records")}</th>
            {CRITERIA.map((criterion) => <th scope="col" key={criterion}>{t(`criterion.${criterion}`)}</th>)}
            <th scope="col">{t("status")}</th>
          </tr>
        </thead>
        <tbody>
          {props.cohorts.map((cohort) => (
            <tr key={cohort.app}>
              <th scope="row">
                <a class="row-link" href={link.study(cohort.app)}>{label(cohort.name ?? cohort.app)}</a>
                <span class="sub">{label(cohort.sector ?? "")}</span>
              </th>
              <td class="right num" data-label={t("owners")}>{cohort.owners}</td>
              <td class="right num" data-label={t("records")} title={number(cohort.records)}>{compact(cohort.records)}</td>
              {CRITERIA.map((criterion) => (
                <td key={criterion} data-label={t(`criterion.${criterion}`)}>
                  <Verdict met={cohort.criteria[criterion]} reason={reason(cohort, criterion)} />
                </td>
              ))}
              <td data-label={t("status")}>
                <Pill tone={cohort.status === "live" ? "good" : "wait"}>{t(`cohort.${cohort.status}`)}</Pill>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function reason(cohort: Cohort, criterion: Criterion): string {
  const values = {
    owners: cohort.owners,
    datasets: cohort.datasets,
    places: cohort.jurisdictions.map(country).join(", ") || "\u2013",
    regions: cohort.regions.join(", ") || "\u2013",
    grades: cohort.grades.join(", ") || "\u2013",
  };
  return tAny(`reason.${criterion}.${cohort.criteria[criterion]}`, values);
}

/** The verdict as a word, with the reason on hover, on focus and for screen readers. */
function Verdict(props: { met: Met; reason: string }) {
  return (
    <span class={`met ${props.met}`} tabIndex={0} data-tip={props.reason}>
      <span class="dot" aria-hidden="true" />
      {t(`met.${props.met}` as Word)}
      <span class="sr">: {props.reason}</span>
    </span>
  );
}
