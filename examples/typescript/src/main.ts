/** Start here: one agent, from its environment, until SIGTERM. */

import { Gateway, settingsFrom } from "./gateway.js";
import { Participant } from "./participant.js";

const COST_S = 0.1; // what doing a task costs us, seconds

async function main(): Promise<void> {
  const settings = settingsFrom(process.env);
  const gateway = await Gateway.connect(settings);
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  await Promise.race([new Participant(gateway, settings.agent, COST_S).run(stop.signal), gateway.closed()]);
  await gateway.close();
}

main().then(
  () => process.exit(0),
  (problem) => {
    console.error(String(problem));
    process.exit(1);
  },
);
