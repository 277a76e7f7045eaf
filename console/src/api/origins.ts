// What stands at the origins that the operator of this console vouches for: agents of a study, and RPC endpoints.
import { useEffect, useState } from "preact/hooks";
import { endpoint } from "../chain/provider";
import { useStore } from "../store";
import { live } from "./live";

/** `machine` of the agent's `/v1/attestation` (docs/spec/agent-api.md). */
export interface Machine {
  cpus: number;
  gpus: number;
  memory_bytes: number | null;
  cpu_percent: number | null;
  memory_percent: number | null;
}

/** Milliseconds between two looks at an agent. */
const LOOK = 5_000;

async function agentAt(origin: string, app: string): Promise<Machine | null> {
  try {
    const answer = await fetch(`${origin}/v1/attestation`, { signal: AbortSignal.timeout(LOOK) });
    const body = (await answer.json()) as { app?: string; machine?: Machine };
    return body.app?.toLowerCase() === app && body.machine ? body.machine : null;
  } catch {
    return null; // not an agent, or not there
  }
}

/** The machine that this study's agent tells of now; null where none is reachable. */
export function useMachine(app: string): Machine | null {
  const { connect } = useStore(live);
  const [machine, set] = useState<Machine | null>(null);
  useEffect(() => {
    let over = false;
    let timer: ReturnType<typeof setTimeout>;
    const look = async () => {
      const found = (await Promise.all(connect.map((origin) => agentAt(origin, app)))).find((it) => it !== null);
      if (over) return;
      set(found ?? null);
      timer = setTimeout(look, LOOK);
    };
    void look();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [app, connect]);
  return machine;
}

/** Origins that answer as an RPC endpoint. */
export function useEndpoints(): string[] {
  const { connect } = useStore(live);
  const [found, set] = useState<string[]>([]);
  useEffect(() => {
    const answers = (origin: string) =>
      endpoint(origin).request({ method: "eth_chainId" }).then((id) => typeof id === "string", () => false);
    void Promise.all(connect.map(answers)).then((yes) => set(connect.filter((_, index) => yes[index])));
  }, [connect]);
  return found;
}
