// Something that a wallet or the chain is asked to do, how it goes, and why it did not work.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { troubleOf, type Trouble } from "../chain/provider";
import { FormatError } from "../format/json";
import { t, tAny } from "../i18n";
import { Notice } from "./basics";

export interface Action {
  busy: string | null;
  trouble: Trouble | null;
  /** Does it, unless something is being done. `doing` says what is going on. */
  run: (doing: string, work: (say: (doing: string) => void) => Promise<void>) => Promise<void>;
  clear: () => void;
}

export function useAction(): Action {
  const [busy, say] = useState<string | null>(null);
  const [trouble, set] = useState<Trouble | null>(null);
  const working = useRef(false); // at once, where `busy` waits for the next rendering: a double click asks the wallet once
  const run: Action["run"] = async (doing, work) => {
    if (working.current) return;
    working.current = true;
    set(null);
    say(doing);
    try {
      await work(say);
    } catch (error) {
      set(error instanceof FormatError ? { kind: "other", detail: error.message } : troubleOf(error));
    } finally {
      working.current = false;
      say(null);
    }
  };
  return { busy, trouble, run, clear: () => set(null) };
}

/** The trouble in words with what to do next. */
export function troubleText(trouble: Trouble): ComponentChildren {
  if (trouble.kind === "reverted") {
    const [first, second] = trouble.args.map(String);
    const key = `revert.${trouble.name}`;
    const said = tAny(key, { first: first ?? "", second: second ?? "" });
    return said === key ? t("trouble.reverted", { name: trouble.name }) : said;
  }
  const detail = "detail" in trouble ? trouble.detail : "";
  return <>{t(`trouble.${trouble.kind}`)} {detail && <span class="mono small">{detail}</span>}</>;
}

export function Outcome(props: { action: Action }) {
  const { busy, trouble } = props.action;
  return (
    <div aria-live="polite" class="outcome">
      {busy && <p class="busy"><span class="spin" aria-hidden="true" />{busy}</p>}
      {trouble && (
        <Notice tone={trouble.kind === "declined" ? "wait" : "bad"} title={t("not_done")} alert>
          {troubleText(trouble)}
        </Notice>
      )}
    </div>
  );
}
