// Numbers, times and hex as people read them, in their language.
import type { Hex } from "viem";
import { speech } from "../i18n";

const language = () => speech.get().language;

export const number = (value: number): string => new Intl.NumberFormat(language()).format(value);

/** 1.6M, 820k. */
export const compact = (value: number): string =>
  new Intl.NumberFormat(language(), { notation: "compact", maximumFractionDigits: 1 }).format(value);

/** A decimal of the API in the person's notation. */
export const decimal = (text: string): string =>
  language() === "tr" ? text.replace(".", ",") : text;

export const bytes = (value: number): string => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, value)) / 3));
  const scaled = value / 1000 ** power;
  return `${new Intl.NumberFormat(language(), { maximumFractionDigits: power ? 1 : 0 }).format(scaled)} ${units[power]}`;
};

/** Unix seconds as date and time of this device. */
export const dateTime = (seconds: number): string =>
  new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: "short" }).format(seconds * 1000);

export const date = (seconds: number): string =>
  new Intl.DateTimeFormat(language(), { dateStyle: "medium" }).format(seconds * 1000);

/** Unix seconds without doubt about the time zone. */
export const utc = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().replace("T", " ").replace(/:\d\d\.\d+Z$/, " UTC");

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
