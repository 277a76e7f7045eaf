// The recipe's file: given by the person, from the browser's memory or from the page's own origin; always hashed here.
import { useEffect, useMemo, useState } from "preact/hooks";
import type { Hex as HexValue } from "viem";
import { base } from "../api/client";
import { parseCompose, type Compose } from "../format/recipe";
import { t } from "../i18n";
import { recall, remember } from "../recipes";
import { FileDrop, Hex, Notice } from "../ui/basics";

export interface Given {
  compose: Compose | null;
  /** Why the file that was given cannot be used. */
  problem: string | null;
  take: (bytes: Uint8Array) => void;
}

/** A file whose hash is `wanted` comes back from memory; one from `url` (same origin only) is fetched once. */
export function useCompose(wanted: HexValue | null, url: string | null): Given {
  const [given, set] = useState<{ wanted: HexValue | null; compose: Compose | null; problem: string | null } | null>(null);
  const remembered = useMemo(() => (wanted ? recall(wanted) : null), [wanted]);
  const fail = (problem: string) => set({ wanted, compose: null, problem });
  const take = (bytes: Uint8Array) => {
    try {
      const compose = parseCompose(bytes);
      if (compose.composeHash === wanted || wanted === null) remember(compose);
      set({ wanted, compose, problem: null });
    } catch (error) {
      fail((error as Error).message);
    }
  };
  useEffect(() => {
    if (!url) return;
    const target = new URL(url, base);
    if (target.origin !== base.origin) return fail(t("compose.other_origin"));
    fetch(target)
      .then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(new Error(String(answer.status)))))
      .then((buffer) => take(new Uint8Array(buffer)), (error: Error) => fail(error.message));
  }, [url]);
  // What was given for another hash says nothing about this one.
  const own = given?.wanted === wanted ? given : null;
  return { compose: own ? own.compose : remembered, problem: own?.problem ?? null, take };
}

export function RecipeDrop(props: { given: Given; label: string }) {
  const { given } = props;
  return (
    <>
      <FileDrop
        label={props.label}
        hint={t("compose.hint")}
        onFiles={async ([file]) => file && given.take(new Uint8Array(await file.arrayBuffer()))}
      />
      {given.problem && <Notice tone="bad" alert title={t("compose.unusable")}><span class="mono small">{given.problem}</span></Notice>}
    </>
  );
}

/** The refusal when the bytes are not what was proposed. */
export function HashMismatch(props: { have: HexValue; want: HexValue }) {
  return (
    <Notice tone="bad" alert title={t("compose.mismatch")}>
      <p>{t("compose.mismatch_text")}</p>
      <dl class="facts">
        <div><dt>{t("compose.of_file")}</dt><dd><Hex value={props.have} ends={10} /></dd></div>
        <div><dt>{t("compose.of_proposal")}</dt><dd><Hex value={props.want} ends={10} /></dd></div>
      </dl>
    </Notice>
  );
}
