// EIP-1193: what a wallet offers a page, and the errors that are told apart.
import type { Hex } from "viem";

export interface Provider {
  request(call: { method: string; params?: unknown }): Promise<unknown>;
  on?(event: string, listener: (value: never) => void): void;
  removeListener?(event: string, listener: (value: never) => void): void;
}

/** Why a wallet or an endpoint did not do it. */
export type Trouble =
  | { kind: "declined" }
  | { kind: "busy" }
  | { kind: "locked" }
  | { kind: "unknown_chain" }
  | { kind: "unreachable"; detail: string }
  | { kind: "reverted"; name: string; args: readonly unknown[] }
  | { kind: "other"; detail: string };

export class ChainError extends Error {
  constructor(readonly trouble: Trouble) {
    super(trouble.kind);
  }
}

interface RpcError {
  code?: number;
  message?: string;
  data?: unknown;
}

/** Revert data stands in different places in different wallets. */
export function revertData(error: unknown): Hex | null {
  let data: unknown = (error as RpcError | null)?.data;
  for (let depth = 0; depth < 4 && data !== null && typeof data === "object"; depth += 1) {
    const inner = data as { data?: unknown; originalError?: unknown };
    data = inner.data ?? inner.originalError;
  }
  return typeof data === "string" && /^0x([0-9a-f]{2}){4,}$/i.test(data) ? (data as Hex) : null;
}

/** EIP-1193 and JSON-RPC codes to what a person can do about it. */
export function troubleOf(error: unknown): Trouble {
  if (error instanceof ChainError) return error.trouble;
  const { code, message } = (error ?? {}) as RpcError;
  const detail = String(message ?? error).slice(0, 300);
  if (code === 4001 || code === 5000) return { kind: "declined" };
  if (code === 4100) return { kind: "locked" };
  if (code === -32002) return { kind: "busy" };
  if (code === 4902) return { kind: "unknown_chain" };
  if (/revert|insufficient funds/i.test(detail)) return { kind: "other", detail };
  if (code === 4900 || code === 4901 || code === -32603 || /fetch|network|timeout|connect/i.test(detail)) {
    return { kind: "unreachable", detail };
  }
  return { kind: "other", detail };
}

/** Milliseconds to wait for an endpoint; questions to a person have no limit. */
const TIMEOUT = 15_000;

/** Asks for what needs no person's consent. */
export async function ask(provider: Provider, method: string, params: unknown[] = []): Promise<unknown> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new ChainError({ kind: "unreachable", detail: `${method}: no answer in ${TIMEOUT / 1000} s` })),
      TIMEOUT,
    );
  });
  try {
    return await Promise.race([provider.request({ method, params }), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A JSON-RPC endpoint as a provider. */
export function endpoint(url: string): Provider {
  let id = 0;
  return {
    async request({ method, params }) {
      id += 1;
      let body: { result?: unknown; error?: RpcError };
      try {
        const answer = await fetch(url, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ jsonrpc: "2.0", id, method, params: params ?? [] }),
        });
        body = (await answer.json()) as typeof body;
      } catch (error) {
        throw new ChainError({ kind: "unreachable", detail: String((error as Error).message) });
      }
      if (body.error) throw body.error;
      return body.result;
    },
  };
}
