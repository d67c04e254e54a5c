/** A gateway's broker, as one agent's user sees it: every message is JSON and says so. */

import { readFileSync } from "node:fs";

import { AckPolicy, DeliverPolicy, jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import { connect, headers, type Msg, type MsgHdrs, type NatsConnection } from "@nats-io/transport-node";

import type { Outcome } from "./messages.js";

const STREAM = "commands";
const JSON_TYPE = "application/json";
const PLAIN = /^[A-Za-z0-9_-]+$/;

/** Where the gateway is and who we are; the variables are those of the Python agents. */
export interface Settings {
  url: string;
  gateway: string;
  agent: string;
  password: string;
}

/** Return the settings, or throw what is missing. */
export function settingsFrom(environment: NodeJS.ProcessEnv): Settings {
  const needed = (name: string): string => {
    const value = environment[name];
    if (!value) throw new Error(`environment variable ${name} is not set: see README.md`);
    return value;
  };
  return {
    url: needed("EDGEAGENTS_NATS_URL"),
    gateway: needed("EDGEAGENTS_GATEWAY"),
    agent: needed("EDGEAGENTS_AGENT_NAME"),
    password: readFileSync(needed("EDGEAGENTS_NATS_PASSWORD_FILE"), "utf8").trim(),
  };
}

/** Return a name as one token of a subject. */
export function token(name: string): string {
  return PLAIN.test(name) ? name : `=${Buffer.from(name).toString("base64url")}`;
}

/** A connection; subjects are given without the gateway's name. */
export class Gateway {
  private isUp = true;

  private constructor(
    private readonly connection: NatsConnection,
    private readonly manager: JetStreamManager,
    private readonly settings: Settings,
  ) {}

  /** Connect as the agent's own user, whose inbox nobody else hears. */
  static async connect(settings: Settings): Promise<Gateway> {
    const user = `agent-${settings.agent}`;
    const connection = await connect({
      servers: settings.url,
      name: user,
      user,
      pass: settings.password,
      inboxPrefix: `_INBOX.${user}`,
      maxReconnectAttempts: -1,
    });
    // An agent may not look at the account: only at its own consumers.
    const manager = await jetstreamManager(connection, { checkAPI: false });
    const gateway = new Gateway(connection, manager, settings);
    void gateway.watchLink();
    return gateway;
  }

  /** Say something, and wait for nothing. */
  publish(subject: string, body: object): void {
    this.connection.publish(this.full(subject), JSON.stringify(body), { headers: asJson() });
  }

  /** Ask, and return the answer; throws when none comes in time or it is no JSON. */
  async request<T>(subject: string, body: object, timeoutMs = 2_000): Promise<T> {
    const options = { timeout: timeoutMs, headers: asJson() };
    return read<T>(await this.connection.request(this.full(subject), JSON.stringify(body), options));
  }

  /**
   * Store a message: on return it is on the gateway's disk; throws when that is not known.
   *
   * Never while the link is down: the client would send it later, and a command may be over by then.
   */
  async store(subject: string, body: object, timeoutMs = 2_000): Promise<void> {
    if (!this.isUp) throw new Error("the link to the broker is down");
    const options = { headers: asJson(), timeout: timeoutMs };
    await this.manager.jetstream().publish(this.full(subject), JSON.stringify(body), options);
  }

  /** Hear a subject until the connection ends; what cannot be read is told and left out. */
  hear<T>(subject: string, take: (said: T) => void): void {
    this.connection.subscribe(this.full(subject), {
      callback: (error, message) => {
        try {
          if (error) throw error;
          take(read<T>(message));
        } catch (problem) {
          console.error(`${subject}: not read: ${String(problem)}`);
        }
      },
    });
  }

  /** Be called when what we may do has changed; nothing in the message itself counts. */
  onCalled(take: () => void): void {
    this.connection.subscribe(`_INBOX.agent-${this.settings.agent}.called`, { callback: () => take() });
  }

  /** Have the broker keep how our commands end, from now on; throws while the guard has not made the stream. */
  async openOutcomes(): Promise<void> {
    await this.manager.consumers.add(STREAM, {
      durable_name: this.consumer,
      filter_subject: this.full(`outcomes.${token(this.settings.agent)}.*`),
      deliver_policy: DeliverPolicy.New,
      ack_policy: AckPolicy.Explicit,
    });
  }

  /** Hand out how our commands end, each at least once, for ever. */
  async followOutcomes(take: (outcome: Outcome) => void): Promise<void> {
    const consumer = await this.manager.jetstream().consumers.get(STREAM, this.consumer);
    for await (const message of await consumer.consume()) {
      if (message.headers?.get("Content-Type") === JSON_TYPE) take(message.json<Outcome>());
      else console.error(`outcome ${message.seq} is of a command in another encoding: none of ours`);
      message.ack();
    }
  }

  /** Resolves once the connection is closed for good. */
  async closed(): Promise<void> {
    const problem = await this.connection.closed();
    if (problem) throw problem;
  }

  /** Send what is under way, and close. */
  async close(): Promise<void> {
    await this.connection.drain();
  }

  private get consumer(): string {
    return `agent-${token(this.settings.agent)}`;
  }

  private async watchLink(): Promise<void> {
    for await (const status of this.connection.status()) {
      if (status.type === "disconnect") this.isUp = false;
      if (status.type === "reconnect") this.isUp = true;
    }
  }

  private full(subject: string): string {
    return `${token(this.settings.gateway)}.${subject}`;
  }
}

function asJson(): MsgHdrs {
  const found = headers();
  found.set("Content-Type", JSON_TYPE);
  return found;
}

function read<T>(message: Msg): T {
  const type = message.headers?.get("Content-Type");
  if (type !== JSON_TYPE) throw new Error(`an answer in ${type || "protobuf"}, not in JSON`);
  return message.json<T>();
}
