// Everything that happened, newest first, in words; each line names its block and transaction.
import { useState } from "preact/hooks";
import type { Event } from "../api/types";
import { t, tAny } from "../i18n";
import type { Study } from "../page/study";
import { Evidence } from "./basics";
import { decimal, short } from "./text";

const SHOWN = 12;

const TONES: Record<string, string> = {
  proposal_activated: "good", receipt_posted: "good", proposal_approved: "good",
  proposal_revoked: "bad", era_started: "bad", proposal_rejected: "bad", receipt_equivocation: "bad", agent_revoked: "bad",
};

/** The values that the sentence of an event may name. */
function values(study: Study, event: Event): Record<string, string> {
  const found: Record<string, string> = {};
  const args: Record<string, unknown> = event.args;
  for (const [name, value] of Object.entries(args)) {
    if (typeof value === "string") found[name] = value.startsWith("0x") ? short(value) : value;
    else if (typeof value === "number") found[name] = String(value);
  }
  const owner = (index: unknown) =>
    [...study.app.owners, ...study.app.former_owners].find((it) => it.index === index)?.owner ?? t("quorum_itself");
  const index = args["owner_index"] ?? args["index"];
  if (typeof index === "number") found["owner"] = owner(index);
  const added = args["added"];
  if (Array.isArray(added)) found["owner"] = added.map(owner).join(", ");
  const info = args["info"] as Record<string, unknown> | undefined;
  if (info) found["dataset"] = `${String(info["records"])} ${String(info["kind"])}, ${String(info["region"])}`;
  for (const name of ["epsilon", "epsilon_spent", "epsilon_cap", "epsilon_committed"]) {
    if (found[name]) found[name] = decimal(found[name]);
  }
  return found;
}

export function Timeline(props: { study: Study }) {
  const [whole, show] = useState(false);
  const events = [...props.study.events].reverse();
  const shown = whole ? events : events.slice(0, SHOWN);
  return (
    <>
      <ol class="timeline">
        {shown.map((event) => (
          <li key={event.cursor} class={TONES[event.kind] ?? ""}>
            <span class="what">{tAny(`event.${event.kind}`, values(props.study, event))}</span>
            <Evidence at={event} />
          </li>
        ))}
      </ol>
      {events.length > SHOWN && (
        <button type="button" class="button quiet" onClick={() => show(!whole)} aria-expanded={whole}>
          {whole ? t("show_less") : t("show_all", { count: events.length })}
        </button>
      )}
    </>
  );
}
