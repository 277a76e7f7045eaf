// Where the mirror stands. The indexer pushes events and positions; whether it is behind the chain is asked now and then.
import { store } from "../store";
import { base, get } from "./client";
import type { Head, Position, Status } from "./types";

export interface Live {
  /** `offline`: the indexer does not answer. `behind`: it answers, but has not seen the chain's newest block lately. */
  state: "connecting" | "live" | "behind" | "offline";
  head: Position | null;
  confirmed: Position | null;
  chainId: number | null;
  lagSeconds: number | null;
  /** Origins that the operator vouches for: RPC endpoints and agents. */
  connect: string[];
  /** Grows whenever pages should load anew. */
  change: number;
}

export const live = store<Live>({
  state: "connecting", head: null, confirmed: null, chainId: null, lagSeconds: null, connect: [], change: 0,
});

/** Milliseconds between two questions whether the mirror keeps up. */
const ASK = 2_000;
/** Blocks for which pages follow every head after an event: until it is confirmed at any usual depth. */
const SETTLE = 12;
/** Milliseconds after which pages load anew without an event: proposals expire by time. */
const REFRESH = 15_000;

let settling = 0;
let refreshed = Date.now();

function moved({ chain_id: chainId, head, confirmed }: Head): void {
  const last = live.get();
  if (head.hash === last.head?.hash) return;
  settling -= 1;
  const due = settling > 0 || Date.now() - refreshed > REFRESH;
  if (due) refreshed = Date.now();
  live.set({ ...last, chainId, head, confirmed, change: last.change + (due ? 1 : 0) });
}

let soon: ReturnType<typeof setTimeout> | undefined;

/** Something happened, or was taken back: pages load anew, once for all events of a block. */
function happened(): void {
  settling = SETTLE;
  clearTimeout(soon);
  soon = setTimeout(() => live.set({ ...live.get(), change: live.get().change + 1 }), 100);
}

let stream: EventSource | null = null;

function listen(from: Position): void {
  // A browser's EventSource comes back by itself and says what it has heard last.
  stream = new EventSource(new URL(`v1/events?after=${from.number}@${from.hash}`, base));
  stream.addEventListener("log", happened);
  stream.addEventListener("rewind", happened);
  stream.addEventListener("head", (event) => moved(JSON.parse((event as MessageEvent<string>).data) as Head));
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) stream = null;
  });
}

async function ask(): Promise<void> {
  try {
    const status = await get<Status>("v1/status");
    const last = live.get();
    const back = last.state === "offline" ? 1 : 0;
    live.set({
      ...last,
      state: status.synced ? "live" : "behind",
      lagSeconds: status.lag_seconds,
      connect: `${status.console_connect}` === `${last.connect}` ? last.connect : status.console_connect,
      change: last.change + back,
    });
    moved(status);
    if (!stream) listen(status.head);
  } catch {
    live.set({ ...live.get(), state: "offline" });
  }
}

export function follow(): void {
  const look = () => void ask().finally(() => setTimeout(look, ASK));
  look();
}
