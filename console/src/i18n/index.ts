// Words in the person's language. English is complete by type; every other dictionary must have the same keys.
import { store } from "../store";
import { en } from "./en";

export type Word = keyof typeof en;
export type Dictionary = Record<Word, string>;

export const languages = { en: "English", tr: "T\u00fcrk\u00e7e" } as const;
export type Language = keyof typeof languages;

const KEY = "cohort.language";
const known = (tag: string | null | undefined): Language | null =>
  tag && tag.slice(0, 2) in languages ? (tag.slice(0, 2) as Language) : null;

function preferred(): Language {
  const chosen = known(localStorage.getItem(KEY));
  return chosen ?? navigator.languages.map(known).find((language) => language !== null) ?? "en";
}

interface Speech {
  language: Language;
  words: Dictionary;
}

export const speech = store<Speech>({ language: "en", words: en });

async function speak(language: Language): Promise<void> {
  const words: Dictionary = language === "tr" ? (await import("./tr")).tr : en;
  document.documentElement.lang = language;
  speech.set({ language, words });
}

/** The browser's language, unless the person chose another. */
export const start = (): Promise<void> => speak(preferred());

export async function choose(language: Language): Promise<void> {
  localStorage.setItem(KEY, language);
  await speak(language);
}

/** The words for a key, with `{name}` replaced. */
export function t(word: Word, values: Record<string, string | number> = {}): string {
  return speech.get().words[word].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** Words whose key is put together at run time; the key itself where there are none. */
export function tAny(key: string, values: Record<string, string | number> = {}): string {
  return key in en ? t(key as Word, values) : key;
}
