/**
 * The messages of proto/ that a participant needs, as JSON has them (docs/api/messages.asyncapi.json).
 *
 * 64-bit numbers are texts, so that none loses digits; what is 0, false or empty may be missing.
 */

export type Int64 = string;

/** Which lease a command was decided under. */
export interface Epoch {
  generation?: Int64;
  revision?: Int64;
}

/** What the owner says on one resource that this agent may command. */
export interface SiteEntry {
  device: string;
  resource: string;
  risk_class: string;
}

/** The guard's answer to a heartbeat. */
export interface SessionWelcome {
  generation?: Int64;
  mode?: string;
  site?: SiteEntry[];
  refused?: string;
}

/** The guard's answer to who asks for a lease. */
export interface LeaseReply {
  granted?: boolean;
  epoch?: Epoch;
  reason?: string;
  retry_after_s?: number;
}

/** How a command ended. */
export interface Outcome {
  command_id: string;
  status: "proven" | "refused" | "failed" | "expired" | "unproven" | "uncertain";
  reason?: string;
}

/** A task that somebody may do. */
export interface Call {
  task: string;
  skill: string;
  epoch?: Int64;
  device?: string;
  resource?: string;
  value?: string;
  left_s?: number;
  accepted_unix_ns?: Int64;
}

/** Who won: whoever this is sent to. */
export interface Award {
  task: string;
  epoch: Int64;
  price?: number;
}

/** One act of a conversation; `conversation` is the task. */
export interface Act {
  version: Int64;
  performative: string;
  conversation: string;
  reason?: string;
  call?: Call;
  bid?: { cost: number; epoch: Int64 };
  award?: Award;
  report?: { task: string; epoch: Int64; status: "done" | "failed" };
}

/** Where the ledger of tasks has one, and why it was not changed. */
export interface LedgerTold {
  task: string;
  epoch?: Int64;
  status?: string;
  winner?: string;
  incarnation?: string;
  problem?: string;
}
