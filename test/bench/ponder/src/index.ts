import { ponder } from "ponder:registry";
import { event as rows } from "ponder:schema";
import abi from "../abi.json";

const text = (_: string, value: unknown) => (typeof value === "bigint" ? value.toString() : value);

for (const { type, name } of abi) {
  if (type !== "event") continue;
  ponder.on(`App:${name}`, async ({ event, context }) => {
    await context.db.insert(rows).values({
      blockNumber: event.block.number,
      logIndex: event.log.logIndex,
      transactionHash: event.transaction.hash,
      kind: name,
      args: JSON.stringify(event.args, text),
    });
  });
}
