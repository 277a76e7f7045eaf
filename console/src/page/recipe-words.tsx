// The recipe in plain words, and how it differs from the one approved before.
import { epsilonText } from "../format/loss";
import type { Compose } from "../format/recipe";
import { lines, words } from "../format/words";
import { t } from "../i18n";
import { Facts, Notice } from "../ui/basics";
import { decimal } from "../ui/text";

export function RecipeWords(props: { compose: Compose }) {
  const { compose } = props;
  const { recipe } = compose;
  return (
    <div class="recipe">
      <h3 class="recipe-title">{compose.title}</h3>
      <Cautions compose={compose} />
      {recipe ? <Declared compose={compose} /> : (
        <>
          <Notice tone="wait" title={t("recipe.no_words", { engine: compose.engine })}>{t("recipe.no_words_text")}</Notice>
          <pre tabIndex={0}>{compose.source}</pre>
        </>
      )}
      <details>
        <summary>{t("recipe.containers")}</summary>
        <pre tabIndex={0}>{compose.containers}</pre>
      </details>
      {recipe && (
        <details>
          <summary>{t("recipe.source")}</summary>
          <pre tabIndex={0}>{compose.source}</pre>
        </details>
      )}
    </div>
  );
}

function Declared(props: { compose: Compose }) {
  const { recipe } = props.compose;
  if (!recipe) return null;
  const said = words(recipe);
  return (
    <>
      <h4>{t("recipe.leaves")}</h4>
      <div class="scroll">
        <table>
          <thead><tr><th scope="col">{t("name")}</th><th scope="col">{t("recipe.what")}</th><th scope="col" class="right">{t("recipe.numbers")}</th><th scope="col" class="right">{"\u03b5"}</th></tr></thead>
          <tbody>
            {said.leaves.map((line) => (
              <tr key={line.name}>
                <th scope="row"><Breaking name={line.name} /></th>
                <td data-label={t("recipe.what")}>{line.text}</td>
                <td class="right num" data-label={t("recipe.numbers")}>{line.cells}</td>
                <td class="right num" data-label={"\u03b5"}>{decimal(epsilonText(line.epsilon))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p>{said.withheld} {t("recipe.nothing_else")} {said.noise}</p>
      {recipe.script && (
        <>
          <h4>{t("recipe.script")}</h4>
          <p class="quiet">{t("recipe.script_text", { seconds: recipe.script.seconds, memory: recipe.script.memoryMib })}</p>
          {recipe.script.text === null ? <p class="mono">{recipe.script.sha256}</p> : <pre tabIndex={0}>{recipe.script.text}</pre>}
        </>
      )}
      {recipe.gpu && <p>GPU: {recipe.gpu}</p>}
      <h4>{t("recipe.reads")}</h4>
      <p class="quiet">{t("recipe.reads_text", { owners: recipe.owners.join(", ") })}</p>
      <ul class="tags">{said.reads.map((line) => <li key={line}>{line}</li>)}</ul>
      <p>{said.person}</p>
      {recipe.prepare && (
        <>
          <h4>{t("recipe.prepare")}</h4>
          <p class="quiet">{t("recipe.prepare_text")}</p>
          {recipe.prepare.steps.map(({ name, sql }) => (
            <figure key={name}>
              <figcaption class="mono small">{name}</figcaption>
              <pre tabIndex={0}>{sql}</pre>
            </figure>
          ))}
          {said.prepared.map((line) => <p key={line}>{line}</p>)}
        </>
      )}
      {said.groups.length > 0 && (
        <Facts rows={[[t("recipe.groups"), <ul class="lines">{said.groups.map((line) => <li key={line}>{line}</li>)}</ul>]]} />
      )}
    </>
  );
}

/** A name that may break after each underscore. */
function Breaking(props: { name: string }) {
  return <>{props.name.split("_").map((part, index) => <>{index > 0 && <>_<wbr /></>}{part}</>)}</>;
}

/** What makes a file unfit to sign, as far as a page sees it; `cohort recipe lint` tells all. */
function Cautions(props: { compose: Compose }) {
  const { compose } = props;
  const images = [...compose.containers.matchAll(/^\s*image:\s*(\S+)/gm)].map(([, image]) => image ?? "");
  const found = [
    ...images.filter((image) => !/@sha256:[0-9a-f]{64}["']?$/.test(image)).map((image) => t("caution.image", { image })),
    ...(compose.allowedEnvs.length ? [t("caution.envs", { names: compose.allowedEnvs.join(", ") })] : []),
    ...(compose.scripts.length ? [t("caution.scripts")] : []),
    ...(compose.publicLogs ? [t("caution.logs")] : []),
  ];
  if (!found.length) return null;
  return (
    <Notice tone="bad" title={t("caution")} alert>
      <ul>{found.map((line) => <li key={line}>{line}</li>)}</ul>
    </Notice>
  );
}

export function RecipeDifference(props: { before: Compose; now: Compose }) {
  const old = lines(props.before);
  const fresh = lines(props.now);
  const gone = old.filter((line) => !fresh.includes(line));
  const added = fresh.filter((line) => !old.includes(line));
  if (!gone.length && !added.length) return <p>{t("difference.same_recipe")}</p>;
  return (
    <ul class="diff">
      {gone.map((line) => <li key={`-${line}`}><del>{line}</del></li>)}
      {added.map((line) => <li key={`+${line}`}><ins>{line}</ins></li>)}
    </ul>
  );
}
