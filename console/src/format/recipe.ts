// The recipe inside an app-compose file (docs/spec/recipe.md), as far as people are shown what it does. The agent and the
// KMS apply all rules of the specification; a recipe with anything that has no words here is shown as its whole text.
import type { Hex } from "viem";
import { canonicalHash, sha256Hex } from "./hash";
import { FormatError, integer, list, members, parseJson, text, utf8, type Json, type JsonObject } from "./json";
import { delta, epsilon } from "./loss";

/** dstack reads no more of an app-compose file. */
const MAX_BYTES = 262_144;

export interface Column {
  name: string;
  type: string;
  nullable: boolean;
  missing: string[];
  /** Whose files have it; empty: all. */
  owners: string[];
}

export interface Key {
  name: string;
  column: string;
  labels: string[];
}

export type Kind =
  | "count" | "proportion" | "mean" | "sum" | "histogram" | "variance" | "quantile" | "linear_regression"
  | "logistic_regression" | "emitted";

export interface Measure {
  name: string;
  kind: Kind;
  by: string[];
  /** Numbers that leave. */
  cells: number;
  /** In units of 1e-9. */
  epsilon: bigint;
  roundTo: string;
  unit: string;
  column: string;
  /** "100" and "170" for mean and sum. */
  bounds: [string, string] | null;
  /** "num >= 1" for proportion. */
  test: string;
  over: string;
  bins: string[];
  /** "age (20..90)" for regressions. */
  features: string[];
  /** Names of the numbers that a script emits, and by how much one person moves them, as its author declares. */
  labels: string[];
  sensitivity: string;
  probability: string;
}

/** The script of engine `python`, as text or by its hash. */
export interface Script {
  text: string | null;
  sha256: string | null;
  seconds: number;
  memoryMib: number;
}

/** SQL by which all owners' rows become one table of persons. */
export interface Prepare {
  steps: { name: string; sql: string }[];
  /** After how many seconds the result is used. */
  seconds: number;
  /** Public tables inside the recipe, with their number of rows. */
  tables: { name: string; rows: number }[];
  columns: Column[];
}

export interface Recipe {
  title: string;
  owners: string[];
  columns: Column[];
  unit: string;
  keys: Key[];
  measures: Measure[];
  minimumGroup: number;
  script: Script | null;
  prepare: Prepare | null;
  /** Privacy loss is (epsilon, delta) then. */
  gaussian: boolean;
  /** "hopper x 1"; empty: no GPU. */
  gpu: string;
}

/** An app-compose file, hashed from its bytes as they came. */
export interface Compose {
  bytes: Uint8Array;
  composeHash: Hex;
  recipeHash: Hex;
  outputSchemaHash: Hex;
  outputSchema: Json;
  /** Null where the recipe has something that this page has no words for; `source` shows it then. */
  recipe: Recipe | null;
  epsilonPerRun: bigint;
  epsilonBudget: bigint;
  /** In units of 1e-18. */
  deltaPerRun: bigint;
  deltaBudget: bigint;
  title: string;
  engine: string;
  source: string;
  /** The containers that run: docker_compose_file. */
  containers: string;
  /** Names of environment variables that the operator may set without changing the hash. */
  allowedEnvs: string[];
  scripts: string[];
  publicLogs: boolean;
  owners: string[];
  /** `gpu` of the recipe, as it stands there. */
  gpu: Json | undefined;
}

const words = (value: Json | undefined, what: string): string[] =>
  list(value, what).map((item) => {
    if (item === null || typeof item === "object") throw new FormatError(`${what} has an entry that is no value`);
    return String(item);
  });

function column(value: Json): Column {
  const object = members(value, "a column", ["name", "type", "nullable"], ["decimals", "missing_values", "owners"]);
  return {
    name: text(object["name"], "a column's name"),
    type: text(object["type"], "a column's type"),
    nullable: object["nullable"] === true,
    missing: object["missing_values"] === undefined ? [] : words(object["missing_values"], "missing_values"),
    owners: object["owners"] === undefined ? [] : words(object["owners"], "owners"),
  };
}

/** The names of the groups between edges; with `open`, those below the first and from the last on as well. */
function intervals(edges: number[], type: string | undefined, open: boolean): string[] {
  const plain = type === "int64" && edges.every((edge) => edge >= 0);
  const between = edges.slice(0, -1).map((edge, index) => {
    const next = edges[index + 1] as number;
    return plain ? (next - edge === 1 ? `${edge}` : `${edge}-${next - 1}`) : `[${edge},${next})`;
  });
  return open ? [`<${edges[0]}`, ...between, `>=${edges.at(-1)}`] : between;
}

function key(value: Json, columns: Column[]): Key {
  const object = members(value, "a key", ["name", "column"], ["bands", "categories"]);
  const name = text(object["name"], "a key's name");
  const from = text(object["column"], "a key's column");
  const type = columns.find((column) => column.name === from)?.type;
  if ("bands" in object === "categories" in object) throw new FormatError(`key ${name} needs bands or categories`);
  const labels =
    "bands" in object
      ? intervals(list(object["bands"], "bands").map(Number), type, true)
      : words(object["categories"], "categories");
  return { name, column: from, labels };
}

const FIELDS: Record<Kind, string[]> = {
  count: ["epsilon"],
  proportion: ["epsilon", "where", "over"],
  mean: ["epsilon_sum", "epsilon_count", "column", "lower", "upper"],
  sum: ["epsilon", "column", "lower", "upper", "over"],
  histogram: ["epsilon", "column", "edges"],
  variance: ["epsilon_sum", "epsilon_squares", "epsilon_count", "column", "lower", "upper"],
  quantile: ["epsilon", "column", "lower", "upper", "probability", "over"],
  linear_regression: ["epsilon", "column", "lower", "upper", "features", "limit"],
  logistic_regression: ["epsilon", "where", "features", "limit"],
  emitted: ["epsilon", "lower", "upper", "over"],
};

const feature = (value: Json): string => {
  const object = members(value, "a feature", ["column", "lower", "upper"]);
  return `${String(object["column"])} (${String(object["lower"])}..${String(object["upper"])})`;
};

function measure(value: Json, keys: Key[], columns: Column[]): Measure {
  const kind = (value as JsonObject | null)?.["kind"] as Kind;
  if (!Object.hasOwn(FIELDS, String(kind))) throw new FormatError(`a measure of the unknown kind ${String(kind)}`);
  const object = members(value, `a ${kind}`, ["name", "kind", "by", "round_to", ...FIELDS[kind]], kind === "emitted" ? ["unit", "labels", "sensitivity"] : ["unit"]);
  const by = words(object["by"], "by");
  const column = typeof object["column"] === "string" ? object["column"] : "";
  const type = columns.find((candidate) => candidate.name === column)?.type;
  const bins = kind === "histogram" ? intervals(list(object["edges"], "edges").map(Number), type, false) : [];
  const groups = by.map((name) => keys.find((candidate) => candidate.name === name)?.labels.length);
  if (groups.includes(undefined)) throw new FormatError("a measure by an unknown key");
  const shares = FIELDS[kind].filter((field) => field.startsWith("epsilon"));
  const features = object["features"] === undefined ? [] : list(object["features"], "features").map(feature);
  const labels = object["labels"] === undefined ? [] : words(object["labels"], "labels");
  const numbers = features.length ? features.length + 1 : Math.max(1, bins.length, labels.length);
  const where = "where" in object ? members(object["where"], "where", ["column", "op", "value"]) : null;
  return {
    name: text(object["name"], "a measure's name"),
    kind,
    by,
    cells: (groups as number[]).reduce((cells, count) => cells * count, numbers),
    epsilon: shares.reduce((sum, share) => sum + epsilon(object[share], share), 0n),
    roundTo: text(object["round_to"], "round_to"),
    unit: object["unit"] === undefined ? "" : text(object["unit"], "unit"),
    column,
    bounds: "lower" in object ? [String(object["lower"]), String(object["upper"])] : null,
    test: where ? `${String(where["column"])} ${String(where["op"])} ${String(where["value"])}` : "",
    over: object["over"] === undefined ? "" : text(object["over"], "over"),
    bins,
    features,
    labels,
    sensitivity: object["sensitivity"] === undefined ? "" : String(object["sensitivity"]),
    probability: object["probability"] === undefined ? "" : text(object["probability"], "probability"),
  };
}

function declared(section: JsonObject): Recipe {
  const object = members(section, "the recipe", [
    "version", "title", "engine", "datasets", "privacy", "keys", "measures", "minimum_group_size", "output_schema",
  ], ["python", "gpu", "prepare"]);
  if (object["version"] !== 1) throw new FormatError("the recipe's version is not 1");
  const datasets = members(object["datasets"], "datasets", ["owners", "columns"]);
  const privacy = members(object["privacy"], "privacy", ["unit", "epsilon_per_run", "epsilon_budget", "delta"], ["noise", "delta_budget"]);
  const noise = privacy["noise"] ?? "laplace";
  if (noise !== "laplace" && noise !== "gaussian") throw new FormatError("the noise is of an unknown kind");
  const columns = list(datasets["columns"], "columns").map(column);
  const prepared = object["prepare"] === undefined ? null : prepare(object["prepare"]);
  const persons = prepared?.columns ?? columns;
  const keys = list(object["keys"], "keys").map((value) => key(value, persons));
  return {
    title: text(object["title"], "title"),
    owners: words(datasets["owners"], "owners"),
    columns,
    unit: text(privacy["unit"], "unit"),
    keys,
    measures: list(object["measures"], "measures").map((value) => measure(value, keys, persons)),
    minimumGroup: integer(object["minimum_group_size"], "minimum_group_size"),
    script: object["python"] === undefined ? null : script(object["python"]),
    prepare: prepared,
    gaussian: noise === "gaussian",
    gpu: object["gpu"] === undefined ? "" : gpu(object["gpu"]),
  };
}

function prepare(value: Json): Prepare {
  const object = members(value, "prepare", ["steps", "columns", "seconds"], ["tables"]);
  return {
    steps: list(object["steps"], "steps").map((it) => {
      const step = members(it, "a step", ["name", "sql"]);
      return { name: text(step["name"], "a step's name"), sql: text(step["sql"], "sql") };
    }),
    tables: (object["tables"] === undefined ? [] : list(object["tables"], "tables")).map((it) => {
      const table = members(it, "a table", ["name", "columns", "rows"]);
      return { name: text(table["name"], "a table's name"), rows: list(table["rows"], "rows").length };
    }),
    columns: list(object["columns"], "columns").map(column),
    seconds: integer(object["seconds"], "prepare.seconds"),
  };
}

function script(value: Json): Script {
  const object = members(value, "python", ["seconds", "memory_mib"], ["script", "script_sha256"]);
  const given = (name: string) => (object[name] === undefined ? null : text(object[name], name));
  return {
    text: given("script"),
    sha256: given("script_sha256"),
    seconds: integer(object["seconds"], "seconds"),
    memoryMib: integer(object["memory_mib"], "memory_mib"),
  };
}

function gpu(value: Json): string {
  const object = members(value, "gpu", ["architecture", "count"]);
  return `${String(object["architecture"])} \u00d7 ${String(object["count"])}`;
}

/** The recipe where all of it can be put into words. */
function readable(section: JsonObject): Recipe | null {
  try {
    return declared(section);
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}

/** Reads an app-compose file. The compose hash is over `bytes` as they are, never over a rewritten file. */
export function parseCompose(bytes: Uint8Array): Compose {
  if (bytes.length > MAX_BYTES) throw new FormatError(`the file is longer than ${MAX_BYTES} bytes`);
  const file = parseJson(utf8(bytes));
  if (file === null || typeof file !== "object" || Array.isArray(file)) throw new FormatError("the file is no object");
  const section = file["cohort"];
  if (section === null || typeof section !== "object" || Array.isArray(section)) {
    throw new FormatError("the file has no recipe: no object under the key cohort");
  }
  const schema = section["output_schema"];
  if (schema === undefined) throw new FormatError("the recipe has no output_schema");
  const scripts = ["pre_launch_script", "init_script"].flatMap((name) =>
    [file[name] ?? []].flat().filter((script): script is string => typeof script === "string" && script !== ""),
  );
  const engine = String(section["engine"]);
  const datasets = section["datasets"] as JsonObject | undefined;
  const privacy = section["privacy"];
  if (privacy === null || typeof privacy !== "object" || Array.isArray(privacy)) {
    throw new FormatError("the recipe has no privacy section");
  }
  return {
    bytes,
    composeHash: sha256Hex(bytes),
    recipeHash: canonicalHash(section),
    outputSchemaHash: canonicalHash(schema),
    outputSchema: schema,
    recipe: readable(section),
    epsilonPerRun: epsilon(privacy["epsilon_per_run"], "epsilon_per_run"),
    epsilonBudget: epsilon(privacy["epsilon_budget"], "epsilon_budget"),
    deltaPerRun: delta(privacy["delta"], "delta"),
    deltaBudget: privacy["delta_budget"] === undefined ? 0n : delta(privacy["delta_budget"], "delta_budget"),
    title: text(section["title"], "title"),
    engine,
    source: JSON.stringify(section, null, 2),
    containers: typeof file["docker_compose_file"] === "string" ? file["docker_compose_file"] : "",
    allowedEnvs: file["allowed_envs"] === undefined ? [] : words(file["allowed_envs"], "allowed_envs"),
    scripts,
    publicLogs: file["public_logs"] === true,
    owners: words(datasets?.["owners"], "owners"),
    gpu: section["gpu"],
  };
}
