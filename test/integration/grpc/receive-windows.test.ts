// How much clients may have on its way to a server: the connections share it.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type ClientHttp2Session, connect } from "node:http2";
import { expect, test } from "vitest";
import { serveGrpc } from "../../../src/actors/grpc/serve-grpc.ts";
import { createCertificates } from "../../../src/demo/certificates.ts";
import { eventually } from "../../support/eventually.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";
import { testLog } from "../../support/test-log.ts";

const MIB = 1 << 20;

test("one connection gets a window for long distances, many share one that memory bounds, and those that stay get it back", async () => {
  await using directory = await temporaryDirectory();
  const certificates = await createCertificates(directory.path, { clusters: ["alpha"] });
  const log = testLog();
  const server = await serveGrpc({
    listenAddress: "127.0.0.1:0",
    tls: { ...certificates.server, clientCaCert: certificates.caCert },
    services: [],
    interceptors: [],
    log,
  });
  const client = certificates.client("alpha");
  const tls = {
    ca: readFileSync(certificates.caCert),
    cert: readFileSync(client.cert),
    key: readFileSync(client.key),
  };
  const sessions: ClientHttp2Session[] = [];
  const open = async () => {
    const session = connect(`https://127.0.0.1:${server.port}`, tls);
    sessions.push(session);
    await once(session, "remoteSettings");
    return session;
  };
  const windowOf = (session: ClientHttp2Session) => session.state.remoteWindowSize ?? 0;
  try {
    const first = await open();
    await eventually(() => windowOf(first) === 16 * MIB);
    for (let n = 2; n <= 32; n++) await open();
    const last = sessions[31]!;
    await eventually(() => windowOf(last) === MIB);
    for (const session of sessions.slice(0, 31)) session.close();
    await eventually(() => last.ping(() => undefined) && windowOf(last) === 16 * MIB);
    expect(log.events()).not.toContain("grpc.window.default");
  } finally {
    for (const session of sessions) session.destroy();
    await server.close(0);
  }
});
