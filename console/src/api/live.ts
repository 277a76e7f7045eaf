// Where the mirror stands, pushed by the indexer; every page loads anew when this moves.
import { store } from "../store";
import type { Position, Status } from "./types";
import { get } from "./client";

export interface Live {
  /** `offline`: the indexer does not answer. `behind`: it answers, but has not seen the chain's newest block lately. */
  state: "connecting" | "live" | "behind" | "offline";
  head: Position | null;
  confirmed: Position | null;
  chainId: number | null;
  lagSeconds: number | null;
  /** Grows whenever pages should load anew. */
  change: number;
}

export const live = store<Live>({
  state: "connecting", head: null, confirmed: null, chainId: null, lagSeconds: null, change: 0,
});

export function heard(status: Status): void {
  const last = live.get();
  const moved = status.head.hash !== last.head?.hash;
  live.set({
    state: status.synced ? "live" : "behind",
    head: status.head,
    confirmed: status.confirmed,
    chainId: status.chain_id,
    lagSeconds: status.lag_seconds,
    change: last.change + (moved ? 1 : 0),
  });
}

export function silent(): void {
  live.set({ ...live.get(), state: "offline" });
}

/** Asks every other second. */
export function follow(): void {
  const look = async () => {
    try {
      heard(await get<Status>("v1/status"));
    } catch {
      silent();
    }
    setTimeout(look, 2000);
  };
  void look();
}
