// The indexer, on the page's own origin and below the page's own path.
import { useEffect, useRef, useState } from "preact/hooks";
import { live } from "./live";
import { useStore } from "../store";

/** The folder that the page is in; the API stands beside it. */
export const base = new URL("./", document.baseURI);

export const apiUrl = (path: string): string => new URL(path, base).pathname + new URL(path, base).search;

/** A refusal of the indexer, or silence. */
export class ApiError extends Error {
  constructor(
    /** Stable code of the answer; `unreachable` when there was none. */
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export async function get<T>(path: string): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(new URL(path, base), { headers: { accept: "application/json" } });
  } catch {
    throw new ApiError("unreachable", "the indexer does not answer");
  }
  let body: unknown;
  try {
    body = await answer.json();
  } catch {
    throw new ApiError("unreachable", `the indexer answered ${answer.status} without JSON`);
  }
  if (!answer.ok) {
    const refusal = body as { code?: string; message?: string };
    throw new ApiError(refusal.code ?? "unreachable", refusal.message ?? String(answer.status));
  }
  return body as T;
}

/** All pages of a list. */
export async function all<T>(path: string, name: string): Promise<T[]> {
  const items: T[] = [];
  let after: string | null = null;
  do {
    const query: string = `limit=500${after ? `&after=${encodeURIComponent(after)}` : ""}`;
    const page: Record<string, unknown> = await get(`${path}?${query}`);
    items.push(...((page[name] ?? []) as T[]));
    after = (page["next"] as string | null) ?? null;
  } while (after);
  return items;
}

export interface Loaded<T> {
  value: T | null;
  error: ApiError | null;
}

/**
 * Loads, and loads again whenever the chain's head has moved: one after the other, however fast it moves and however slow
 * the answers are. Keeps showing the last value while it does.
 */
export function useLoaded<T>(key: string, load: () => Promise<T>): Loaded<T> {
  const head = useStore(live).change;
  const [loaded, set] = useState<Loaded<T> & { key: string }>({ key, value: null, error: null });
  const newest = useRef(0);
  const running = useRef({ key, done: Promise.resolve() });
  useEffect(() => {
    newest.current += 1;
    const mine = newest.current;
    // What another page asked for is not waited for.
    if (running.current.key !== key) running.current = { key, done: Promise.resolve() };
    const queue = running.current;
    queue.done = queue.done.then(async () => {
      if (mine !== newest.current) return;
      let next: (last: Loaded<T> & { key: string }) => Loaded<T> & { key: string };
      try {
        const value = await load();
        next = () => ({ key, value, error: null });
      } catch (error) {
        const told = error instanceof ApiError ? error : new ApiError("internal", String(error));
        next = (last) => ({ key, value: last.key === key ? last.value : null, error: told });
      }
      if (running.current === queue) set(next);
    });
  }, [key, head]);
  return loaded.key === key ? loaded : { value: null, error: null };
}
