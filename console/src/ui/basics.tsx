// The few components that all pages share.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Stamp } from "../api/types";
import { apiUrl, type ApiError } from "../api/client";
import { t, tAny } from "../i18n";
import { copyText, dateTime, instant, short, utc } from "./text";

export type Tone = "good" | "wait" | "bad" | "plain";

export function Pill(props: { tone: Tone; children: ComponentChildren }) {
  return <span class={`pill ${props.tone}`}>{props.children}</span>;
}

/** A hash or an address: short to read, whole to copy. */
export function Hex(props: { value: string; ends?: number; label?: string }) {
  const [copied, set] = useState(false);
  const copy = async () => {
    if (!(await copyText(props.value))) return;
    set(true);
    setTimeout(() => set(false), 1500);
  };
  return (
    <button type="button" class="hex" title={props.value} onClick={copy}>
      <span class="mono">{short(props.value, props.ends ?? 4)}</span>
      <CopyMark done={copied} />
      <span class="sr">{copied ? t("copied") : t("copy", { value: props.label ?? "" })}</span>
    </button>
  );
}

function CopyMark(props: { done: boolean }) {
  return (
    <svg class="mark" viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
      {props.done ? (
        <path d="M3 8.5l3.2 3.2L13 4.8" />
      ) : (
        <path d="M5.5 5.5h7v8h-7zM3.5 10.5v-8h7" />
      )}
    </svg>
  );
}

/** When and where: the block and transaction that a statement rests on, and the indexer's own record of it. */
export function Evidence(props: { at: Stamp; record?: string }) {
  const { at, record } = props;
  return (
    <span class="evidence">
      <time dateTime={instant(at.block.timestamp)} title={utc(at.block.timestamp)}>
        {dateTime(at.block.timestamp)}
      </time>
      <span class="num">#{at.block.number}</span>
      <Hex value={at.transaction_hash} label={t("transaction")} />
      {record && <a href={apiUrl(record)}>{t("record")}</a>}
    </span>
  );
}

export function Card(props: { title?: string; note?: ComponentChildren; class?: string; id?: string; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class={`card ${props.class ?? ""}`} aria-labelledby={props.title ? id : undefined} id={props.id}>
      {props.title && (
        <header>
          <h2 id={id}>{props.title}</h2>
          {props.note && <div class="note">{props.note}</div>}
        </header>
      )}
      {props.children}
    </section>
  );
}

/** A list of more than a screen's worth scrolls inside its card, by keyboard as well. */
export const many = (count: number, name: string) =>
  count > 12 ? ({ class: "long", tabIndex: 0, role: "group", "aria-label": name } as const) : {};

/** Name and value pairs. */
export function Facts(props: { rows: ([string, ComponentChildren] | null | "")[] }) {
  return (
    <dl class="facts">
      {props.rows.filter((row) => row !== null && row !== "").map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Notice(props: { tone: Tone; title?: string; children?: ComponentChildren; alert?: boolean }) {
  return (
    <div class={`notice ${props.tone}`} role={props.alert ? "alert" : undefined}>
      {props.title && <strong>{props.title}</strong>}
      {props.children && <div>{props.children}</div>}
    </div>
  );
}

/** What stands in the place of something that is not there yet, or did not come. */
export function Missing(props: { error: ApiError | null; what: string; part?: boolean }) {
  if (!props.error) return <p class="quiet" role="status">{t("loading")}</p>;
  return (
    <>
      {!props.part && <h1>{props.what}</h1>}
      <Notice tone="bad" alert title={t("not_loaded", { what: props.what })}>
        {tAny(`api.${props.error.code}`)} <span class="mono">{props.error.code}</span>
      </Notice>
    </>
  );
}

/** A file from this device, by choosing or dropping. The bytes stay in the browser. */
export function FileDrop(props: { label: string; hint?: string; accept?: string; multiple?: boolean; onFiles: (files: File[]) => void }) {
  const [over, set] = useState(false);
  const id = useId();
  const take = (list: FileList | null | undefined) => {
    if (list?.length) props.onFiles([...list]);
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    set(false);
    take(event.dataTransfer?.files);
  };
  return (
    <label
      class={`drop ${over ? "over" : ""}`}
      for={id}
      onDragOver={(event) => (event.preventDefault(), set(true))}
      onDragLeave={() => set(false)}
      onDrop={drop}
    >
      <input
        id={id}
        type="file"
        accept={props.accept ?? ".json,application/json"}
        multiple={props.multiple ?? false}
        onChange={(event) => {
          take(event.currentTarget.files);
          event.currentTarget.value = "";
        }}
      />
      <strong>{props.label}</strong>
      <span>{props.hint ?? t("drop_hint")}</span>
    </label>
  );
}

/** A dialog that the browser itself makes modal, with focus kept inside and given back. */
export function Dialog(props: { title: string; open: boolean; onClose: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (props.open && !dialog?.open) dialog?.showModal();
    if (!props.open && dialog?.open) dialog.close();
  }, [props.open]);
  return (
    <dialog ref={ref} aria-labelledby={id} onClose={props.onClose}>
      <div class="head">
        <h2 id={id}>{props.title}</h2>
        <button type="button" class="plain" onClick={props.onClose} aria-label={t("close")}>
          <svg class="mark" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="M3.5 3.5l9 9m0-9l-9 9" /></svg>
        </button>
      </div>
      {props.open && props.children}
    </dialog>
  );
}

/** Gives the browser a file to save. */
export function save(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
