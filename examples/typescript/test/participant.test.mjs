// What a participant may never do, whatever its gateway does: played by a gateway that is slow, full or away.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { Participant } from "../dist/participant.js";

const SITE = [{ device: "lamp", resource: "On", risk_class: "A" }];

/** A gateway that takes everything at once, unless a test replaces a part. */
class Played {
  stored = [];
  closed = [];
  said = [];
  asked = [];
  beats = [];
  opened = 0;
  take = () => undefined;
  ended = () => undefined;

  publish(subject, body) {
    if (subject.startsWith("sessions.")) this.beats.push(Date.now());
    else this.said.push({ subject, ...body });
  }

  async request(subject, body) {
    this.asked.push(subject);
    if (subject.startsWith("sessions.")) return { generation: "1", mode: "act", site: SITE };
    if (subject.startsWith("leases.")) return { granted: !body.release, epoch: { generation: "1", revision: "2" } };
    if (body.verb === "close") this.closed.push(body);
    const status = body.verb === "take" ? "taken" : body.status;
    return { task: body.task, epoch: body.epoch, status, winner: "ts", incarnation: body.incarnation };
  }

  async store(_, command) {
    this.stored.push({ atMs: Date.now(), ...command });
    this.ended({ command_id: command.id, status: "proven", reason: "On reads true" });
  }

  hear(_, take) {
    this.take = take;
  }

  onCalled() {}

  async openOutcomes() {
    this.opened += 1;
  }

  async followOutcomes(take) {
    this.ended = take;
    await new Promise(() => undefined);
  }

  /** Give a task of so many seconds, and award it. */
  award(task, leftS) {
    const call = { task, skill: "set", device: "lamp", resource: "On", value: "true", left_s: leftS };
    this.take({ performative: "cfp", conversation: task, call });
    this.take({ performative: "accept-proposal", conversation: task, award: { task, epoch: "1" } });
  }
}

async function playing(gateway, play) {
  const stop = new AbortController();
  const running = new Participant(gateway, "ts", 0.1).run(stop.signal);
  try {
    while (gateway.said.length === 0) await sleep(5);
    await play();
  } finally {
    stop.abort();
    await Promise.race([running, sleep(2_000)]);
  }
}

async function until(holds, what) {
  for (const endMs = Date.now() + 10_000; Date.now() < endMs; await sleep(10)) if (holds()) return;
  assert.fail(`not in 10 s: ${what}`);
}

test("a task is bid for, won, done and reported", async () => {
  const gateway = new Played();
  await playing(gateway, async () => {
    gateway.award("t", 30);
    await until(() => gateway.closed.length, "it is closed");
    assert.equal(gateway.closed[0].status, "done");
    assert.equal(gateway.stored.length, 1);
    assert.equal(typeof gateway.stored[0].data_origin_ns, "string");
    assert.ok(gateway.stored[0].ttl_s <= 10);
  });
  const words = gateway.said.filter((act) => act.subject.startsWith("acts.")).map((act) => act.performative);
  assert.deepEqual(words, ["propose", "inform", "inform"]);
});

test("no command outlives its task, however long the stream refuses it", async () => {
  const gateway = new Played();
  const store = gateway.store.bind(gateway);
  let refused = 0;
  gateway.store = async (subject, command) => {
    if (refused++ < 2) throw new Error("the stream is full");
    await store(subject, command);
  };
  let endMs = 0;
  await playing(gateway, async () => {
    endMs = Date.now() + 2_500;
    gateway.award("t", 2.5);
    await until(() => gateway.closed.length, "it is closed");
  });
  assert.equal(gateway.stored.length, 1);
  const [command] = gateway.stored;
  assert.ok(command.atMs + command.ttl_s * 1_000 <= endMs + 50, "it ends with its task");
});

test("what is over is not begun, and is closed as failed", async () => {
  const gateway = new Played();
  gateway.store = async () => {
    gateway.stored.push({ atMs: Date.now() });
    throw new Error("the stream is full");
  };
  let endMs = 0;
  await playing(gateway, async () => {
    endMs = Date.now() + 1_200;
    gateway.award("t", 1.2);
    await until(() => gateway.closed.length, "it is closed");
  });
  assert.ok(gateway.stored.every((one) => one.atMs <= endMs));
  assert.deepEqual([gateway.closed[0].status, gateway.closed[0].reason], ["failed", "the stream is full"]);
});

test("after a cancel no command begins to be stored, and the ledger is told all the same", async () => {
  const gateway = new Played();
  gateway.store = async () => {
    gateway.stored.push({ atMs: Date.now() });
    throw new Error("the stream is full");
  };
  let cancelledMs = 0;
  await playing(gateway, async () => {
    gateway.award("t", 30);
    await until(() => gateway.stored.length, "it tries to store");
    cancelledMs = Date.now();
    gateway.take({ performative: "cancel", conversation: "t", reason: "cancelled by dan" });
    await until(() => gateway.closed.length, "it is closed");
    await sleep(700);
  });
  assert.ok(gateway.stored.every((one) => one.atMs <= cancelledMs));
  assert.deepEqual([gateway.closed[0].status, gateway.closed[0].reason], ["failed", "cancelled by dan"]);
});

test("a guard that answers late does not keep heartbeats back", async () => {
  const gateway = new Played();
  const request = gateway.request.bind(gateway);
  let welcomes = 0;
  gateway.request = async (subject, body) => {
    if (subject.startsWith("sessions.") && ++welcomes > 1) await sleep(2_000);
    return request(subject, body);
  };
  await playing(gateway, () => sleep(3_000));
  const gaps = gateway.beats.slice(1).map((atMs, number) => atMs - gateway.beats[number]);
  assert.ok(gaps.length >= 4 && Math.max(...gaps) < 1_500, `${gaps}`);
});

test("a stream that is not there yet is waited for, and nobody hears of us before", async () => {
  const gateway = new Played();
  const open = gateway.openOutcomes.bind(gateway);
  let tries = 0;
  gateway.openOutcomes = async () => {
    if (++tries < 3) throw new Error("stream not found");
    await open();
  };
  await playing(gateway, async () => assert.equal(gateway.opened, 1));
  assert.equal(tries, 3);
});

test("a lease that another task of ours still uses is not given back", async () => {
  const gateway = new Played();
  const released = [];
  const request = gateway.request.bind(gateway);
  gateway.request = async (subject, body) => {
    if (body.release) released.push(gateway.closed.length);
    return request(subject, body);
  };
  const waiting = [];
  gateway.store = async (_, command) => {
    waiting.push(command.id);
  };
  await playing(gateway, async () => {
    gateway.award("a", 30);
    gateway.award("b", 30);
    await until(() => waiting.length === 2, "both are stored");
    gateway.ended({ command_id: waiting[0], status: "proven" });
    await until(() => gateway.closed.length === 1, "the first is closed");
    assert.equal(released.length, 0);
    gateway.ended({ command_id: waiting[1], status: "proven" });
    await until(() => gateway.closed.length === 2, "the second is closed");
  });
  assert.equal(released.length, 1);
});
