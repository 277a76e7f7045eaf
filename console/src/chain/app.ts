// Calls of one DstackApp through a provider.
import {
  decodeErrorResult, decodeFunctionResult, encodeFunctionData, type ContractFunctionArgs, type ContractFunctionName,
  type ContractFunctionReturnType, type Hex,
} from "viem";
import { abi } from "../generated/contract";
import type { Terms } from "../format/typed";
import { ask, ChainError, revertData, troubleOf, type Provider } from "./provider";

type Abi = typeof abi;
type View = ContractFunctionName<Abi, "view">;
type Write = ContractFunctionName<Abi, "nonpayable">;
type Arguments<N extends View | Write> = ContractFunctionArgs<Abi, "view" | "nonpayable", N>;

/** A block's number, or the newest. */
export type At = bigint | "latest";

const tag = (at: At) => (at === "latest" ? at : `0x${at.toString(16)}`);

/** A revert as the contract's own error, anything else as trouble of the endpoint. */
function refusal(error: unknown): ChainError {
  const data = revertData(error);
  if (data) {
    try {
      const { errorName, args } = decodeErrorResult({ abi, data }) as { errorName: string; args?: readonly unknown[] };
      return new ChainError({ kind: "reverted", name: errorName, args: args ?? [] });
    } catch {
      return new ChainError({ kind: "reverted", name: data.slice(0, 10), args: [] });
    }
  }
  return new ChainError(troubleOf(error));
}

export class App {
  constructor(
    readonly provider: Provider,
    readonly address: Hex,
  ) {}

  async chainId(): Promise<number> {
    return Number(await this.ask("eth_chainId"));
  }

  async ask(method: string, params: unknown[] = []): Promise<unknown> {
    try {
      return await ask(this.provider, method, params);
    } catch (error) {
      throw refusal(error);
    }
  }

  /** Reads a view at a block. */
  async read<N extends View>(
    functionName: N,
    args: Arguments<N>,
    at: At = "latest",
  ): Promise<ContractFunctionReturnType<Abi, "view", N>> {
    const data = encodeFunctionData({ abi, functionName, args } as never);
    const answer = (await this.ask("eth_call", [{ to: this.address, data }, tag(at)])) as Hex;
    if (answer === "0x") throw new ChainError({ kind: "other", detail: `no contract at ${this.address}` });
    return decodeFunctionResult({ abi, functionName, data: answer } as never) as never;
  }

  /** Whether a call would go through; throws the contract's reason if not. Sends nothing. */
  async simulate<N extends Write>(functionName: N, args: Arguments<N>, from?: Hex): Promise<void> {
    const data = encodeFunctionData({ abi, functionName, args } as never);
    await this.ask("eth_call", [{ to: this.address, data, ...(from && { from }) }, "latest"]);
  }

  /** Simulates, then asks the wallet to send; returns the transaction's hash. */
  async send<N extends Write>(functionName: N, args: Arguments<N>, from: Hex): Promise<Hex> {
    await this.simulate(functionName, args, from);
    const data = encodeFunctionData({ abi, functionName, args } as never);
    try {
      const call = { method: "eth_sendTransaction", params: [{ from, to: this.address, data }] };
      return (await this.provider.request(call)) as Hex;
    } catch (error) {
      throw refusal(error);
    }
  }

  /** Waits until the transaction is in a block; throws if it failed there. */
  async mined(transaction: Hex, poll = 700): Promise<bigint> {
    for (;;) {
      const receipt = (await this.ask("eth_getTransactionReceipt", [transaction])) as Mined | null;
      if (receipt?.blockNumber) {
        if (Number(receipt.status) !== 1) throw new ChainError({ kind: "reverted", name: "transaction", args: [] });
        return BigInt(receipt.blockNumber);
      }
      await new Promise((resolve) => setTimeout(resolve, poll));
    }
  }
}

/** `eth_getTransactionReceipt`. */
export interface Mined {
  status: Hex;
  blockNumber: Hex;
  blockHash: Hex;
  logs: { address: Hex; topics: [Hex, ...Hex[]]; data: Hex }[];
}

/** Terms as viem's ABI types have them: it wants small integers as numbers and encodes bigints just as well. */
export const abiTerms = (terms: Terms) => terms as unknown as Arguments<"approve">[0];
