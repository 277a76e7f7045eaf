// What a recipe does, in words for the people who sign it, in their language.
import { t } from "../i18n";
import { decimal } from "../ui/text";
import { deltaText, epsilonText } from "./loss";
import type { Column, Compose, Measure, Recipe } from "./recipe";

export interface Words {
  reads: string[];
  /** How the rows become persons; empty where a row is one. */
  prepared: string[];
  /** Kind of noise and its cost, where that is more than epsilon. */
  noise: string;
  person: string;
  groups: string[];
  leaves: { name: string; text: string; epsilon: bigint; cells: number }[];
  withheld: string;
}

function column(it: Column): string {
  const missing = it.missing.length ? t("words.missing", { values: it.missing.join(", ") }) : "";
  const of = it.owners.length ? t("words.of", { owners: it.owners.join(", ") }) : "";
  return `${it.name} (${it.type})${it.nullable ? t("words.nullable") : ""}${missing}${of}`;
}

function what(measure: Measure): string {
  const unit = measure.unit && ` ${measure.unit}`;
  const [lower = "", upper = ""] = measure.bounds ?? [];
  const { column, test, over, probability } = measure;
  const lists = { bins: measure.bins.join(", "), features: measure.features.join(", "), labels: measure.labels.length ? ` (${measure.labels.join(", ")})` : "" };
  const declared = measure.kind === "emitted" ? `; ${measure.sensitivity ? t("words.moves", { sensitivity: measure.sensitivity }) : t("words.clamped")}` : "";
  return t(`words.${measure.kind}`, { column, test, over, probability, unit, lower, upper, ...lists }).trimEnd() + declared;
}

function leaves(measure: Measure): string {
  const by = measure.by.length ? t("words.by", { keys: measure.by.join(" \u00d7 ") }) : "";
  return `${what(measure)}${by}; ${t("words.cells", { cells: measure.cells, round: decimal(measure.roundTo) })}`;
}

export function words(recipe: Recipe): Words {
  const { prepare } = recipe;
  return {
    reads: recipe.columns.map(column),
    prepared: prepare ? [
      ...prepare.tables.map(({ name, rows }) => t("words.table", { name, rows })),
      t("words.giving", { columns: prepare.columns.map(column).join("; ") }),
      t("words.timed", { seconds: prepare.seconds }),
    ] : [],
    noise: recipe.gaussian ? t("words.gaussian") : "",
    person: t(prepare ? "words.person_joined" : "words.person", { unit: recipe.unit }),
    groups: recipe.keys.map((key) => `${key.name} (${key.column}): ${key.labels.join(", ")}`),
    leaves: recipe.measures.map((measure) => ({
      name: measure.name, text: leaves(measure), epsilon: measure.epsilon, cells: measure.cells,
    })),
    withheld: t("words.withheld", { least: recipe.minimumGroup }),
  };
}

/** One line for each statement, to compare two recipes by. */
export function lines(compose: Compose): string[] {
  const containers = compose.containers.split("\n").map((line) => line.trim()).filter(Boolean);
  const run = containers.map((line) => `${t("words.container")}: ${line}`);
  const { recipe } = compose;
  if (!recipe) return [...compose.source.split("\n").map((line) => line.trim()), ...run];
  const said = words(recipe);
  return [
    recipe.title,
    `${t("owners")}: ${recipe.owners.join(", ")}`,
    ...said.reads.map((line) => `${t("words.reads")}: ${line}`),
    said.person,
    ...said.groups,
    ...said.leaves.map(({ name, text, epsilon }) => `${name}: ${text}, \u03b5 ${decimal(epsilonText(epsilon))}`),
    said.withheld,
    ...said.prepared,
    ...(recipe.prepare?.steps ?? []).flatMap(({ name, sql }) => [name, ...sql.split("\n").map((line) => line.trim()).filter(Boolean)]),
    `${said.noise || t("words.laplace")}, \u03b4 ${decimal(deltaText(compose.deltaPerRun))} / ${decimal(deltaText(compose.deltaBudget))}`,
    ...(recipe.gpu ? [`GPU: ${recipe.gpu}`] : []),
    ...(recipe.script?.text ?? recipe.script?.sha256 ?? "").split("\n").filter(Boolean),
    ...run,
  ];
}
