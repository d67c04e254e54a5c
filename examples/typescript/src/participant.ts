/**
 * One agent's part in contract nets: it says that it is there, bids, takes what it wins, does it, and reports.
 *
 * It commands nothing by itself: a task becomes a command, which the guard judges, carries out and proves. No command
 * outlives its task, and none begins to be stored once the task was cancelled.
 */

import { createHash, randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { type Gateway, token } from "./gateway.js";
import type { Act, Award, Call, LeaseReply, LedgerTold, Outcome, SessionWelcome } from "./messages.js";

const HEARTBEAT_MS = 500;
const ANNOUNCE_MS = 1_000;
const WELCOME_AGAIN_MS = 5_000;
const AGAIN_MS = 500;
const LONGEST_MS = 3_600_000;
const TTL_S = 10;

interface Conversation {
  call: Call;
  deadlineMs: number;
  isTaken: boolean;
  cancelled: string;
}

interface Ended {
  status: "done" | "failed";
  reason: string;
}

/** What a participant needs of a gateway. */
export type Link = Pick<
  Gateway,
  "publish" | "request" | "store" | "hear" | "onCalled" | "openOutcomes" | "followOutcomes"
>;

/** An agent with the skill `set`: it sets one resource of one device. */
export class Participant {
  private readonly incarnation = randomBytes(8).toString("hex");
  private readonly known = new Map<string, Conversation>();
  private readonly awaited = new Map<string, (outcome: Outcome) => void>();
  private welcome: SessionWelcome = {};
  private told = "";

  constructor(
    private readonly gateway: Link,
    private readonly name: string,
    private readonly cost: number,
  ) {}

  /** Take part until the signal says stop. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted && !(await this.isWelcome())) await sleep(AGAIN_MS);
    while (!stop.aborted && !(await this.hearsOutcomes())) await sleep(AGAIN_MS);
    if (stop.aborted) return;
    const take = (outcome: Outcome) => this.awaited.get(outcome.command_id)?.(outcome);
    const outcomes = this.gateway.followOutcomes(take).catch((problem: unknown) => {
      if (!stop.aborted) throw problem; // at the end the connection goes away under it
    });
    this.gateway.onCalled(() => void this.isWelcome());
    this.gateway.hear<Act>(`acts.${token(this.name)}.coordinator`, (said) => this.heard(said));
    const forEver = [
      every(HEARTBEAT_MS, stop, () => this.beat()),
      every(WELCOME_AGAIN_MS, stop, () => this.isWelcome()), // what the owner permits may have changed
      every(ANNOUNCE_MS, stop, () => this.announce()),
    ];
    await Promise.race([outcomes, Promise.all(forEver)]);
  }

  // --- that we are there ---------------------------------------------------------------------------

  private async isWelcome(): Promise<boolean> {
    try {
      const asked = { incarnation: this.incarnation };
      this.welcome = await this.gateway.request<SessionWelcome>(`sessions.${token(this.name)}`, asked);
    } catch (problem) {
      this.tell(`no guard: ${String(problem)}`);
      return false;
    }
    const { refused, mode, site } = this.welcome;
    this.tell(refused ? `the guard refuses us: ${refused}` : `welcome: mode ${mode}, ${site?.length ?? 0} resources`);
    return !refused;
  }

  private async hearsOutcomes(): Promise<boolean> {
    try {
      await this.gateway.openOutcomes();
      return true;
    } catch (problem) {
      this.tell(`outcomes cannot be read yet: ${String(problem)}`);
      return false;
    }
  }

  /** Say how we stand with the guard, once until it changes. */
  private tell(standing: string): void {
    if (standing !== this.told) console.log(standing);
    this.told = standing;
  }

  private async beat(): Promise<void> {
    this.gateway.publish(`sessions.${token(this.name)}`, { incarnation: this.incarnation });
  }

  private async announce(): Promise<void> {
    const busy = [...this.known.values()].filter((item) => item.isTaken).length;
    this.gateway.publish(`roster.${token(this.name)}`, { incarnation: this.incarnation, skills: ["set"], busy });
    for (const [task, item] of this.known) if (!item.isTaken && isOver(item)) this.known.delete(task);
  }

  // --- what the coordinator says -------------------------------------------------------------------

  private heard(said: Act): void {
    const known = this.known.get(said.conversation);
    switch (said.performative) {
      case "cfp":
        if (said.call && !known?.isTaken) this.called(said.conversation, said.call);
        break;
      case "accept-proposal":
        if (known && said.award && !known.isTaken) this.awarded(known, said.award);
        break;
      case "reject-proposal":
        if (!known?.isTaken) this.known.delete(said.conversation);
        break;
      case "cancel":
        if (known) known.cancelled = said.reason || "cancelled";
        if (!known?.isTaken) this.known.delete(said.conversation);
        break;
      default:
        console.error(`${said.performative} means nothing here`);
    }
  }

  private called(task: string, call: Call): void {
    const problem = this.problem(call);
    if (problem) {
      this.say({ performative: "refuse", conversation: task, reason: problem });
      return;
    }
    const leftMs = Math.min(call.left_s ? call.left_s * 1_000 : LONGEST_MS, LONGEST_MS);
    this.known.set(task, { call, deadlineMs: Date.now() + leftMs, isTaken: false, cancelled: "" });
    this.say({ performative: "propose", conversation: task, bid: { cost: this.cost, epoch: call.epoch ?? "0" } });
  }

  /** Say why we cannot do it; empty: we can, as far as we know. The guard has the last word. */
  private problem(call: Call): string {
    if (call.skill !== "set") return `${this.name} has no skill '${call.skill}'`;
    if (this.welcome.mode !== "act") return "mode observe";
    const entry = this.welcome.site?.find((one) => one.device === call.device && one.resource === call.resource);
    if (!entry) return `${this.name} may not set ${call.device}/${call.resource}`;
    return entry.risk_class === "A" ? "" : `${call.device}/${call.resource} needs a consent`;
  }

  private awarded(item: Conversation, award: Award): void {
    // An award of an older epoch is for another call.
    if (award.task !== item.call.task || BigInt(award.epoch) <= BigInt(item.call.epoch ?? "0")) return;
    item.isTaken = true;
    this.work(item, award)
      .catch((problem) => console.error(`task ${award.task}: ${String(problem)}`))
      .finally(() => this.known.delete(award.task));
  }

  // --- the work ------------------------------------------------------------------------------------

  private async work(item: Conversation, award: Award): Promise<void> {
    const { task, epoch } = award;
    const ledger = `ledger.${token(this.name)}`;
    const take = { verb: "take", task, epoch, incarnation: this.incarnation };
    const taken = await this.whileWanted(item, () => this.gateway.request<LedgerTold>(ledger, take));
    const isOurs = taken.winner === this.name && taken.incarnation === this.incarnation && taken.epoch === epoch;
    if (taken.status !== "taken" || !isOurs) return; // somebody else's, or over
    this.say({ performative: "inform", conversation: task, award });
    const ended = await this.perform(item, award).catch((problem): Ended => failed(textOf(problem)));
    const close = { verb: "close", task, epoch, status: ended.status, reason: ended.reason };
    await this.untilTold(item, () => this.gateway.request<LedgerTold>(ledger, close));
    const report = { task, epoch, status: ended.status };
    this.say({ performative: ended.status === "done" ? "inform" : "failure", conversation: task, report });
    console.log(`task ${task}: ${ended.status}: ${ended.reason}`);
  }

  private async perform(item: Conversation, award: Award): Promise<Ended> {
    const { device = "", resource = "", value = "", accepted_unix_ns: acceptedNs = "0", skill } = item.call;
    const asked = { incarnation: this.incarnation, device, resource };
    const leases = `leases.${token(this.name)}`;
    const lease = await this.whileWanted(item, async () => {
      const reply = await this.gateway.request<LeaseReply>(leases, asked);
      if (!reply.granted) throw new Error(`no lease: ${reply.reason ?? "held by another"}`);
      return reply;
    });
    // Of the task, its award and when it was accepted: an award that is done twice is one command at the guard.
    const words = ["edgeagents-participant", this.name, award.task, award.epoch, acceptedNs];
    const id = createHash("sha256").update(JSON.stringify(words)).digest("hex").slice(0, 32);
    const cause = { stream: `tasks/${award.task}/${acceptedNs}`, sequence: award.epoch, event_id: award.task };
    const because = `task ${award.task}: ${skill}`;
    const command = { id, device, resource, value, incarnation: this.incarnation, epoch: lease.epoch, cause, because };
    const outcome = new Promise<Outcome>((resolve) => this.awaited.set(id, resolve));
    try {
      await this.whileWanted(item, () => {
        // Anew at each try: it may never act when the task is over. The guard counts from when it is stored.
        const ttlS = Math.min(TTL_S, (item.deadlineMs - Date.now()) / 1_000);
        const now = { ttl_s: ttlS, data_origin_ns: (BigInt(Date.now()) * 1_000_000n).toString() };
        return this.gateway.store(`commands.${token(device)}.${token(this.name)}`, { ...command, ...now });
      });
      const { status, reason } = await withinMs(outcome, item.deadlineMs - Date.now(), "no outcome in time");
      const text = reason ? `${status}: ${reason}` : status;
      return status === "proven" || status === "unproven" ? { status: "done", reason: text } : failed(text);
    } finally {
      this.awaited.delete(id);
      // Others may want to set it: we are done with it, unless another task of ours is about the same.
      const isSame = (other: Conversation) => other.call.device === device && other.call.resource === resource;
      const isUsed = [...this.known.values()].some((other) => other !== item && other.isTaken && isSame(other));
      if (!isUsed) this.gateway.request(leases, { ...asked, release: true }).catch(() => undefined);
    }
  }

  /** Try again and again until it works; never begin once the task is over or was cancelled. */
  private async whileWanted<T>(item: Conversation, once: () => Promise<T>): Promise<T> {
    for (let last = "its time is over"; ; ) {
      if (item.cancelled || isOver(item)) throw new Error(item.cancelled || last);
      try {
        return await once();
      } catch (problem) {
        last = textOf(problem);
      }
      await sleep(AGAIN_MS);
    }
  }

  /** Try once at least, and again until it works or the task is over: how it ended is to be known, come what may. */
  private async untilTold<T>(item: Conversation, once: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await once();
      } catch (problem) {
        if (isOver(item)) throw problem;
      }
      await sleep(AGAIN_MS);
    }
  }

  private say(act: Omit<Act, "version">): void {
    this.gateway.publish(`acts.coordinator.${token(this.name)}`, { version: "1", ...act });
  }
}

function isOver(item: Conversation): boolean {
  return Date.now() >= item.deadlineMs;
}

function failed(reason: string): Ended {
  return { status: "failed", reason };
}

function textOf(problem: unknown): string {
  return problem instanceof Error ? problem.message : String(problem);
}

async function every(ms: number, stop: AbortSignal, once: () => Promise<unknown>): Promise<void> {
  while (!stop.aborted) {
    await once();
    await sleep(ms, undefined, { signal: stop }).catch(() => undefined);
  }
}

async function withinMs<T>(promise: Promise<T>, ms: number, otherwise: string): Promise<T> {
  const end = new AbortController();
  const late = sleep(Math.max(0, ms), undefined, { signal: end.signal }).then(() => {
    throw new Error(otherwise);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    end.abort();
    late.catch(() => undefined);
  }
}
