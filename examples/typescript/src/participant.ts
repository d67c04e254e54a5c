/**
 * One agent's part in contract nets: it says that it is there, bids, takes what it wins, does it, and reports.
 *
 * It commands nothing by itself: a task becomes a command, which the guard judges, carries out and proves.
 */

import { createHash, randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { type Gateway, token } from "./gateway.js";
import type { Act, Award, Call, LeaseReply, LedgerTold, Outcome, SessionWelcome } from "./messages.js";

const HEARTBEAT_MS = 500;
const ANNOUNCE_MS = 1_000;
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

/** An agent with the skill `set`: it sets one resource of one device. */
export class Participant {
  private readonly incarnation = randomBytes(8).toString("hex");
  private readonly known = new Map<string, Conversation>();
  private readonly awaited = new Map<string, (outcome: Outcome) => void>();
  private welcome: SessionWelcome = {};
  private told = "";

  constructor(
    private readonly gateway: Gateway,
    private readonly name: string,
    private readonly cost: number,
  ) {}

  /** Take part until the signal says stop. */
  async run(stop: AbortSignal): Promise<void> {
    const take = (outcome: Outcome) => this.awaited.get(outcome.command_id)?.(outcome);
    void this.gateway.followOutcomes(take).catch((problem) => stop.aborted || fatal(problem));
    await this.welcomed(stop);
    this.gateway.hear<Act>(`acts.${token(this.name)}.coordinator`, (said) => this.heard(said));
    await Promise.all([this.keepSession(stop), this.announce(stop)]);
  }

  // --- that we are there ---------------------------------------------------------------------------

  private async welcomed(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      try {
        this.welcome = await this.gateway.request(`sessions.${token(this.name)}`, { incarnation: this.incarnation });
        if (!this.welcome.refused) break;
        this.tell(`the guard refuses us: ${this.welcome.refused}`);
      } catch (problem) {
        this.tell(`no guard yet: ${String(problem)}`);
      }
      await sleep(AGAIN_MS);
    }
    this.tell(`welcome: mode ${this.welcome.mode}, ${this.welcome.site?.length ?? 0} resources`);
  }

  /** Say how we stand with the guard, once until it changes. */
  private tell(standing: string): void {
    if (standing !== this.told) console.log(standing);
    this.told = standing;
  }

  private async keepSession(stop: AbortSignal): Promise<void> {
    for (let beat = 1; !stop.aborted; beat++) {
      if (beat % 10 === 0) await this.welcomed(stop); // what the owner permits may have changed
      else this.gateway.publish(`sessions.${token(this.name)}`, { incarnation: this.incarnation });
      await sleep(HEARTBEAT_MS);
    }
  }

  private async announce(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const busy = [...this.known.values()].filter((item) => item.isTaken).length;
      const said = { incarnation: this.incarnation, skills: ["set"], busy };
      this.gateway.publish(`roster.${token(this.name)}`, said);
      for (const [task, item] of this.known) if (Date.now() > item.deadlineMs) this.known.delete(task);
      await sleep(ANNOUNCE_MS);
    }
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
    const taken = await this.ledger(item, { verb: "take", task, epoch, incarnation: this.incarnation });
    const isOurs = taken.winner === this.name && taken.incarnation === this.incarnation && taken.epoch === epoch;
    if (taken.status !== "taken" || !isOurs) return; // somebody else's, or over
    this.say({ performative: "inform", conversation: task, award });
    const ended = await this.perform(item, award).catch((problem): Ended => failed(String(problem)));
    await this.ledger(item, { verb: "close", task, epoch, status: ended.status, reason: ended.reason });
    const report = { task, epoch, status: ended.status };
    this.say({ performative: ended.status === "done" ? "inform" : "failure", conversation: task, report });
    console.log(`task ${task}: ${ended.status}: ${ended.reason}`);
  }

  private async ledger(item: Conversation, asked: object): Promise<LedgerTold> {
    return this.insistently(item, () => this.gateway.request<LedgerTold>(`ledger.${token(this.name)}`, asked));
  }

  private async perform(item: Conversation, award: Award): Promise<Ended> {
    const { call } = item;
    const lease = await this.leased(item);
    const ttlS = Math.min(TTL_S, (item.deadlineMs - Date.now()) / 1_000);
    if (item.cancelled || !(ttlS > 0)) return failed(item.cancelled || "its time is over");
    // Of the task, its award and when it was accepted: an award that is done twice is one command at the guard.
    const words = ["edgeagents-participant", this.name, award.task, award.epoch, call.accepted_unix_ns ?? "0"];
    const id = createHash("sha256").update(JSON.stringify(words)).digest("hex").slice(0, 32);
    const command = {
      id,
      device: call.device,
      resource: call.resource,
      value: call.value,
      incarnation: this.incarnation,
      epoch: lease.epoch,
      ttl_s: ttlS,
      cause: { stream: `tasks/${award.task}/${call.accepted_unix_ns ?? "0"}`, sequence: award.epoch, event_id: award.task },
      because: `task ${award.task}: ${call.skill}`,
      data_origin_ns: (BigInt(Date.now()) * 1_000_000n).toString(),
    };
    const outcome = new Promise<Outcome>((resolve) => this.awaited.set(id, resolve));
    try {
      const subject = `commands.${token(command.device ?? "")}.${token(this.name)}`;
      await this.insistently(item, () => this.gateway.store(subject, command));
      const { status, reason } = await withinMs(outcome, item.deadlineMs - Date.now(), "no outcome in time");
      const text = reason ? `${status}: ${reason}` : status;
      return status === "proven" || status === "unproven" ? { status: "done", reason: text } : failed(text);
    } finally {
      this.awaited.delete(id);
    }
  }

  private async leased(item: Conversation): Promise<LeaseReply> {
    const { device, resource } = item.call;
    const asked = { incarnation: this.incarnation, device, resource };
    return this.insistently(item, async () => {
      const reply = await this.gateway.request<LeaseReply>(`leases.${token(this.name)}`, asked);
      if (!reply.granted) throw new Error(`no lease: ${reply.reason ?? "held by another"}`);
      return reply;
    });
  }

  /** Try something again and again until it works, the task's time is over or it was cancelled. */
  private async insistently<T>(item: Conversation, once: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await once();
      } catch (problem) {
        if (item.cancelled || Date.now() + AGAIN_MS >= item.deadlineMs) throw problem;
        await sleep(AGAIN_MS);
      }
    }
  }

  private say(act: Omit<Act, "version">): void {
    this.gateway.publish(`acts.coordinator.${token(this.name)}`, { version: "1", ...act });
  }
}

function failed(reason: string): Ended {
  return { status: "failed", reason };
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

function fatal(problem: unknown): never {
  console.error(`outcomes cannot be read: ${String(problem)}`);
  process.exit(1);
}
