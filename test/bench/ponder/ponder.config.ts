// Ponder 1.0.0, with the settings that make it fastest on a local node: no limit on requests or on the size of answers.
import { createConfig } from "ponder";
import { http } from "viem";
import abi from "./abi.json";

export default createConfig({
  database: { kind: "postgres", connectionString: process.env.DATABASE_URL },
  networks: {
    bench: {
      chainId: 31337,
      transport: http(process.env.BENCH_RPC_URL, { maxResponseBodySize: false }),
      maxRequestsPerSecond: 100_000,
    },
  },
  contracts: {
    App: { network: "bench", abi, address: process.env.BENCH_APP as `0x${string}`, startBlock: 0 },
  },
});
