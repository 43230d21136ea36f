// A WAL server on a real directory with mutual TLS, and clients with the certificates of its clusters.
import { join } from "node:path";
import { type ServeWalOptions, serveWal, type WalServer } from "../../src/actors/grpc/serve-wal.actor.ts";
import { connectWal, type WalClient } from "../../src/actors/grpc/wal-client.ts";
import type { UploadOptions, UploadOutcome, WalUpload } from "../../src/actors/grpc/wal-upload.ts";
import { type Certificates, createCertificates } from "../../src/demo/certificates.ts";
import type { Fact } from "../../src/domain/facts.ts";
import { KlioError } from "../../src/errors.ts";
import type { WalInterrupted } from "../../src/machines/wal-ingest.machine.ts";
import { noTelemetry } from "../../src/telemetry/telemetry.ts";
import { temporaryDirectory } from "./temporary-directory.ts";
import { openStore, type TestStore } from "./wal-store.ts";

type Told = Extract<Fact, { type: "wal.stored" }> | WalInterrupted;
export type TestWalServer = TestStore & {
  directory: string;
  server: WalServer;
  certificates: Certificates;
  told: Told[];
  client(cluster?: string, asCluster?: string): Promise<WalClient>;
  /** Closes server and store and opens both again, on the same directory and port. */
  restart(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
};

const notHere = (what: string) => async () => {
  throw new KlioError("KLIO-TIER-MISSING", `${what} is not configured in this test`);
};

export async function startWalServer(
  overrides: Partial<ServeWalOptions> & { readOnly?: boolean; clusters?: string[]; root?: string } = {},
): Promise<TestWalServer> {
  const directory = await temporaryDirectory();
  const { readOnly = false, clusters = ["alpha", "beta"], root = join(directory.path, "wal"), ...options } = overrides;
  const certificates = await createCertificates(join(directory.path, "tls"), { clusters });
  const clients: WalClient[] = [];
  const told: Told[] = [];
  const tls = { cert: certificates.server.cert, key: certificates.server.key, clientCaCert: certificates.caCert };
  const telemetry = noTelemetry();
  let current = await openStore(root);
  const { masterKey } = current;
  const serve = async (listenAddress: string) => {
    const { store, log, facts } = current;
    return serveWal({
      reader: store,
      ...(!readOnly && { store }),
      tls,
      listenAddress,
      telemetry: { ...telemetry, record: (fact) => facts.push(fact) },
      log,
      closeBackup: notHere("closeBackup"),
      openRepository: notHere("openRepository"),
      maintainBackups: notHere("maintainBackups"),
      onStored: (fact) => told.push(fact),
      onInterrupted: (fact) => told.push(fact),
      ...options,
    });
  };
  let server = await serve("127.0.0.1:0");
  const test: TestWalServer = {
    ...current,
    directory: root,
    server,
    certificates,
    told,
    async client(cluster = "alpha", asCluster = cluster) {
      const { cert, key } = certificates.client(asCluster);
      const client = await connectWal({
        address: server.address,
        tls: { serverCertPath: certificates.server.cert, clientCertPath: cert, clientKeyPath: key },
        clusterName: cluster,
        telemetry,
        log: current.log,
      });
      clients.push(client);
      return client;
    },
    async restart() {
      await server.close();
      await current.store.close();
      current = await openStore(root, masterKey);
      server = await serve(server.address);
      Object.assign(test, current, { server });
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      await server.close(500);
      await current.store.close();
      await directory[Symbol.asyncDispose]();
    },
  };
  return test;
}

export type Ack = { durableBytes: number; complete: boolean };

/** Opens an upload that keeps its acknowledgements. */
export function upload(client: WalClient, options: Partial<UploadOptions> & Pick<UploadOptions, "walName">) {
  const acks: Ack[] = [];
  const call: WalUpload = client.upload({
    segmentBytes: 1 << 20,
    sendToTier2: true,
    method: "stream",
    fromOffset: 0,
    ...options,
    onAck: (ack) => acks.push(ack),
  });
  return { call, acks };
}

/** Sends a whole file and waits for its end. */
export async function send(
  client: WalClient,
  bytes: Uint8Array,
  options: Partial<UploadOptions> & Pick<UploadOptions, "walName">,
  block = 100_000,
): Promise<UploadOutcome & { acks: Ack[] }> {
  const { call, acks } = upload(client, { segmentBytes: bytes.length, ...options });
  for (let at = options.fromOffset ?? 0; at < bytes.length; at += block)
    if (!call.sendCopy(bytes.subarray(at, at + block))) await call.drained();
  call.finish();
  return { ...(await call.ended), acks };
}
