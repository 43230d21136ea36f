// Holds the connections of a stream, to the source and to the server, while the machine is attached: opens them, tells when
// the source is lost, and closes both. Certificates and keys are read again each time, so that they can be replaced.
import { fromCallback } from "xstate";
import { type Failure, failure, failureOf, type Outcome } from "../../domain/outcome.ts";
import type { TimelineHistory } from "../../domain/timeline.ts";
import { firstTimeline } from "../../domain/timeline.ts";
import { KlioError } from "../../errors.ts";
import type { WalStreamEvent } from "../../machines/wal-stream-events.ts";
import { askSource, type Row } from "./ask-source.ts";
import { openSession, type SourceSession } from "./source-session.ts";

/** `Server` is the client of the WAL service; this file needs to know only how to close it. */
export type HoldOptions<Server extends { close(): void }> = {
  dsn: string;
  standardDsn: string;
  applicationName: string;
  /** Only a primary will do. */
  primary: boolean;
  connectServer: () => Promise<Server>;
};

/** The connections in hand. Between a loss and the next connection there are none, and asking for one is a bug. */
export class SourceHold<Server extends { close(): void }> {
  readonly options: HoldOptions<Server>;
  /** History of the source's timeline, as read last. */
  history: TimelineHistory = firstTimeline;
  /** The source ends a connection that says nothing for this long; 0: never. */
  senderTimeoutMs = 0;
  #session: SourceSession | undefined;
  #server: Server | undefined;
  #closing: Promise<void> = Promise.resolve();

  constructor(options: HoldOptions<Server>) {
    this.options = options;
  }

  get session(): SourceSession {
    if (this.#session === undefined) throw new KlioError("KLIO-BUG", "there is no connection to the source");
    return this.#session;
  }
  get server(): Server {
    if (this.#server === undefined) throw new KlioError("KLIO-BUG", "there is no connection to the server");
    return this.#server;
  }

  /** Opens both; what was opened before a failure is closed by `close`. */
  async open(slot: string, signal: AbortSignal): Promise<Failure | SourceSession> {
    const { dsn, standardDsn, applicationName, primary } = this.options;
    try {
      const role = await askSource(
        standardDsn,
        "select pg_is_in_recovery() as standby, current_setting('server_version_num')::int as version",
        { signal, applicationName },
      );
      if (role.kind !== "ok") return role;
      const { standby, version } = role.value[0] ?? {};
      if (typeof version !== "number" || version < 150_000 || version >= 190_000)
        return failure(
          "KLIO-SOURCE-UNSUPPORTED",
          `PostgreSQL ${Math.trunc(Number(version) / 10_000)} is not supported`,
        );
      if (primary && standby === true)
        return failure("KLIO-SOURCE-DOWN", "this PostgreSQL is a standby; waiting until it is promoted");
      this.#server = await this.options.connectServer();
      const session = await openSession(dsn, { applicationName, slot, signal });
      if (session.kind !== "ok") return session;
      this.#session = session.value;
      return session.value;
    } catch (error) {
      return failureOf(error);
    }
  }

  /** One question over an ordinary session. */
  ask(sql: string, values: unknown[], signal: AbortSignal): Promise<Outcome<Row[]>> {
    const { standardDsn, applicationName } = this.options;
    return askSource(standardDsn, sql, { values, signal, applicationName });
  }

  close(): void {
    const [session, server] = [this.#session, this.#server];
    this.#session = undefined;
    this.#server = undefined;
    server?.close();
    if (session !== undefined) this.#closing = session.close();
  }

  /** Resolves when the connection that was closed last is gone. */
  get closed(): Promise<void> {
    return this.#closing;
  }
}

/** Actor logic of walStream. */
export function holdSource<Server extends { close(): void }>(hold: SourceHold<Server>) {
  return fromCallback<{ type: "shutdown.requested" }, { slot: string }>(({ input, sendBack }) => {
    const abort = new AbortController();
    const send = (event: WalStreamEvent) => {
      if (!abort.signal.aborted) sendBack(event);
    };
    const run = async () => {
      await hold.closed;
      if (abort.signal.aborted) return;
      const opened = await hold.open(input.slot, abort.signal);
      if (abort.signal.aborted) return hold.close();
      if ("kind" in opened) return send({ type: "source.lost", failure: opened });
      send({ type: "source.connected" });
      send({ type: "source.lost", failure: failureOf(await opened.gone) });
    };
    void run();
    return () => {
      abort.abort();
      hold.close();
    };
  });
}
