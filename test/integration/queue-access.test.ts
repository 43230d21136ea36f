// The ways into somebody else's NATS, each with what is right and what is not; what is not names its option.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openQueue, type QueueAddress } from "../../src/actors/jetstream/queue.ts";
import { createCertificates } from "../../src/demo/certificates.ts";
import { unwrap } from "../../src/domain/outcome.ts";
import { type ExternalNats, externalNats } from "../support/external-nats.ts";
import { natsOperator } from "../support/nats-operator.ts";
import { temporaryDirectory } from "../support/temporary-directory.ts";
import { testLog } from "../support/test-log.ts";

const open = (nats: ExternalNats, more: Partial<QueueAddress>) =>
  openQueue(
    {
      url: nats.url,
      tls: { caFile: nats.certificates.caCert },
      ...{ namespace: "one", replicas: 1, owner: "server-1", isExternal: true },
      ...more,
    },
    { log: testLog() },
  );

/** A task goes in and is counted. */
async function works(nats: ExternalNats, more: Partial<QueueAddress>) {
  await using queue = await open(nats, more);
  unwrap(
    await queue.publish("wal", { clusterName: "a", walName: "000000010000000000000001" }, { id: `${Math.random()}` }),
  );
  expect(unwrap(await queue.status()).pending.wal).toBeGreaterThan(0);
}

async function refusal(nats: ExternalNats, more: Partial<QueueAddress>): Promise<string> {
  const queue = open(nats, more);
  const text = await queue.then(
    async (opened) => {
      await opened[Symbol.asyncDispose]();
      return "opened";
    },
    (error: { code?: string; message?: string }) => `${error.code} ${error.message}`,
  );
  return text;
}

const wrong = "KLIO-QUEUE-REFUSED the queue at the other end refuses us: user, password or credentials are wrong: ";

test("KLIO-QUEUE-REFUSED: credentials of an operator's account let us in; expired, foreign, limited ones and none do not", async () => {
  await using directory = await temporaryDirectory();
  const operator = natsOperator(directory.path);
  await using nats = await externalNats(directory.path, { access: operator.access });
  await works(nats, { credentialsFile: operator.user("klio") });
  const expired = operator.user("expired", { expiresAt: 1_000 });
  expect(await refusal(nats, { credentialsFile: expired })).toBe(`${wrong}queue.credentials_file ${expired}`);
  await using other = await temporaryDirectory();
  const foreign = natsOperator(other.path).user("klio");
  expect(await refusal(nats, { credentialsFile: foreign })).toBe(`${wrong}queue.credentials_file ${foreign}`);
  const limited = operator.user("limited", { deny: ["$JS.API.STREAM.>"] });
  expect(await refusal(nats, { credentialsFile: limited })).toMatch(
    /^KLIO-QUEUE-REFUSED .*Permissions Violation for Publish to "\$JS\.API\.STREAM\.[^"]+": queue\.credentials_file .*limited\.creds$/,
  );
  expect(await refusal(nats, {})).toBe(`${wrong}none of queue.credentials_file, queue.token_file, queue.user is set`);
  const junk = join(directory.path, "junk");
  writeFileSync(junk, "nothing of the kind");
  expect(await refusal(nats, { credentialsFile: junk })).toMatch(
    /not a file of NATS credentials: queue\.credentials_file/,
  );
});

test("KLIO-QUEUE-REFUSED: a token lets us in, another one does not; KLIO-CONFIG when its file cannot be read", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path, { access: 'authorization { token: "open sesame" }' });
  await works(nats, { tokenFile: nats.passwordFile });
  expect(await refusal(nats, { tokenFile: nats.wrongFile })).toBe(`${wrong}queue.token_file ${nats.wrongFile}`);
  const user = { user: "klio", passwordFile: nats.passwordFile };
  expect(await refusal(nats, user)).toBe(`${wrong}queue.user klio with queue.password_file`);
  expect(await refusal(nats, { tokenFile: join(directory.path, "none") })).toMatch(/^KLIO-CONFIG .*queue\.token_file/);
});

test("KLIO-QUEUE-REFUSED: a client certificate that is wanted; without it, with a foreign one and with another's key its options are named", async () => {
  await using directory = await temporaryDirectory();
  await using nats = await externalNats(directory.path, { wantsCertificate: true });
  const { caCert: caFile } = nats.certificates;
  const own = nats.certificates.client("klio");
  const foreign = await createCertificates(join(directory.path, "foreign"), {
    clusters: ["klio"],
    authority: "Other CA",
  });
  const other = foreign.client("klio");
  const user = { user: "klio", passwordFile: nats.passwordFile };
  const withTls = (tls: NonNullable<QueueAddress["tls"]>) => ({ ...user, tls });
  await works(nats, withTls({ caFile, certFile: own.cert, keyFile: own.key }));
  expect(await refusal(nats, withTls({ caFile }))).toBe(
    "KLIO-QUEUE-REFUSED the queue at the other end refuses us: it wants a client certificate: set queue.client_cert and queue.client_key",
  );
  expect(await refusal(nats, withTls({ caFile, certFile: other.cert, keyFile: other.key }))).toMatch(
    /^KLIO-QUEUE-REFUSED .*it does not accept queue\.client_cert: .*unknown ca/,
  );
  expect(await refusal(nats, withTls({ caFile, certFile: own.cert, keyFile: other.key }))).toMatch(
    /^KLIO-QUEUE-REFUSED .*queue\.client_key is not of queue\.client_cert$/,
  );
  expect(await refusal(nats, withTls({ caFile: foreign.caCert, certFile: own.cert, keyFile: own.key }))).toMatch(
    /^KLIO-QUEUE-REFUSED .*TLS: .*certificate.*; see queue\.ca_cert$/,
  );
  // A certificate that is accepted is not what is wrong.
  const badPassword = { user: "klio", passwordFile: nats.wrongFile };
  const tls = { caFile, certFile: own.cert, keyFile: own.key };
  expect(await refusal(nats, { ...badPassword, tls })).toBe(`${wrong}queue.user klio with queue.password_file`);
});
