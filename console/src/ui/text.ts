// Numbers, times and hex as people read them, in their language.
import type { Hex } from "viem";
import { speech } from "../i18n";

const language = () => speech.get().language;

/** The person's own kind of that language, for dates and numbers. */
const locale = () => (globalThis.navigator?.languages ?? []).find((tag) => tag.slice(0, 2) === language()) ?? language();

/** A time that dates can show; chains and files may name any number. */
const LAST = 8.64e12;

export const number = (value: number): string => new Intl.NumberFormat(locale()).format(value);

/** 1.6M, 820k. */
export const compact = (value: number): string =>
  new Intl.NumberFormat(locale(), { notation: "compact", maximumFractionDigits: 1 }).format(value);

/** A decimal of the API in the person's notation. */
export const decimal = (text: string): string =>
  text.replace(".", separator());

const separator = () => new Intl.NumberFormat(locale()).formatToParts(0.5).find(({ type }) => type === "decimal")?.value ?? ".";

export const bytes = (value: number): string => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3));
  const scaled = value / 1000 ** power;
  return `${new Intl.NumberFormat(locale(), { maximumFractionDigits: power ? 1 : 0 }).format(scaled)} ${units[power]}`;
};

/** Unix seconds as date and time of this device. */
export const dateTime = (seconds: number): string =>
  shown({ dateStyle: "medium", timeStyle: "short" }, seconds);

export const date = (seconds: number): string =>
  shown({ dateStyle: "medium" }, seconds);

const shown = (style: Intl.DateTimeFormatOptions, seconds: number): string =>
  seconds <= LAST ? new Intl.DateTimeFormat(locale(), style).format(seconds * 1000) : String(seconds);

/** For machines. */
export const instant = (seconds: number): string => new Date(Math.min(seconds, LAST) * 1000).toISOString();

/** Unix seconds without doubt about the time zone. */
export const utc = (seconds: number): string =>
  seconds > LAST ? String(seconds) : new Date(seconds * 1000).toISOString().replace("T", " ").replace(/:\d\d\.\d+Z$/, " UTC");

/** 0x91d2...0c4f */
export const short = (hex: Hex | string, ends = 4): string =>
  hex.length > 2 * ends + 3 ? `${hex.slice(0, 2 + ends)}\u2026${hex.slice(-ends)}` : hex;

/** heart-disease as Heart disease. */
export const label = (name: string | null): string => {
  const words = (name ?? "\u2013").replaceAll(/[-_.]+/g, " ").trim();
  return words.charAt(0).toLocaleUpperCase("en") + words.slice(1);
};

/** A region or country code's name where there is one. */
export const country = (code: string): string => {
  try {
    return new Intl.DisplayNames([language()], { type: "region" }).of(code) ?? code;
  } catch {
    return code;
  }
};

/** Puts it on the clipboard; false where the browser does not let a page. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without TLS have no clipboard of their own, but may copy what is selected.
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
