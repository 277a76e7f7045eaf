// The released aggregate: one table for the measures over the same cells, and bars for a histogram.
import type { Json, JsonObject } from "../format/json";
import { t } from "../i18n";
import { decimal, number } from "./text";

interface Cell {
  key: string;
  value: number | null;
}

interface MeasureCells {
  name: string;
  unit: string;
  kind: string;
  cells: Cell[];
}

/** Measures where the payload has the form of declared recipes; null where it has another. */
export function measures(payload: Json): MeasureCells[] | null {
  const list = (payload as JsonObject | null)?.["measures"];
  if (!Array.isArray(list)) return null;
  return list.map((item) => {
    const measure = item as JsonObject;
    const cells = Array.isArray(measure["cells"]) ? measure["cells"] : [];
    return {
      name: String(measure["name"]).replaceAll("_", " "),
      unit: typeof measure["unit"] === "string" ? measure["unit"] : "",
      kind: String(measure["kind"]),
      cells: cells.map((cell) => {
        const { key, value } = cell as { key: string[]; value: number | null };
        return { key: Array.isArray(key) ? key.join(" \u00b7 ") : "", value };
      }),
    };
  });
}

const show = (value: number | null) =>
  value === null ? t("payload.withheld") : Number.isInteger(value) ? number(value) : decimal(String(value));

/** A bin's part of the largest. */
function Bar(props: { value: number | null; of: MeasureCells }) {
  const most = Math.max(...props.of.cells.map(({ value }) => value ?? 0));
  const part = props.value === null || most <= 0 ? 0 : (100 * props.value) / most;
  return <svg class="bin" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width={part} height="8" /></svg>;
}

export function Payload(props: { payload: Json; exact?: Json }) {
  const list = measures(props.payload);
  if (!list) return <pre tabIndex={0}>{JSON.stringify(props.payload, null, 2)}</pre>;
  const exact = props.exact === undefined ? null : measures(props.exact);
  const groups = new Map<string, number[]>();
  list.forEach((measure, index) => {
    const cells = measure.cells.map(({ key }) => key).join("|");
    groups.set(cells, [...(groups.get(cells) ?? []), index]);
  });
  return (
    <>
      {[...groups.values()].map((members) => {
        const columns = members.map((index) => list[index]).filter((measure) => measure !== undefined);
        return (
          <div class="scroll" key={members.join()} tabIndex={0} role="group" aria-label={columns.map(({ name }) => name).join(", ")}>
            <table class="payload">
              <thead>
                <tr>
                  <th scope="col"><span class="sr">{t("payload.group")}</span></th>
                  {columns.map((measure) => <th scope="col" class="right" key={measure.name}>{measure.name}{measure.unit && <small> {measure.unit}</small>}</th>)}
                </tr>
              </thead>
              <tbody>
                {columns[0]?.cells.map((cell, row) => (
                  <tr key={cell.key}>
                    <th scope="row">{cell.key}</th>
                    {columns.map((measure, column) => {
                      const known = exact?.[members[column] as number]?.cells[row]?.value;
                      return (
                        <td class="right num" data-label={measure.name} key={measure.name}>
                          {columns.length === 1 && measure.kind === "histogram" && <Bar value={measure.cells[row]?.value ?? null} of={measure} />}
                          <span>{show(measure.cells[row]?.value ?? null)}</span>
                          {known !== undefined && <small class="exact"> {show(known)}</small>}
                        </td>
                      );
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        );
      })}
    </>
  );
}
