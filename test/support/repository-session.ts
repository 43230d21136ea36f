// A session with the repository server by its own protocol, for what its program would never send: what a manifest says of
// itself and what the server is told of it (its labels) may differ.
import { readFileSync } from "node:fs";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import type { ClusterAccess } from "../../src/domain/snapshots.ts";

export type RepositorySession = Disposable & {
  /** Returns the id. This and the others reject with what the server says. */
  putManifest(labels: Record<string, string>, manifest: unknown): Promise<string>;
  deleteManifest(id: string): Promise<void>;
  /** An empty directory; returns its object id. */
  emptyDirectory(): Promise<string>;
};

type Fields = Map<number, Uint8Array>;
// Numbers of repository_server.proto: of requests, and of the answers to them.
const kinds = { error: 2, initialize: 10, flush: 12, writeContent: 13, putManifest: 16, deleteManifest: 18 } as const;
const text = new TextDecoder();

const message = (...fields: [number, string | Uint8Array][]) => {
  const writer = new BinaryWriter();
  for (const [number, value] of fields) {
    writer.tag(number, WireType.LengthDelimited);
    if (typeof value === "string") writer.string(value);
    else writer.bytes(value);
  }
  return writer.finish();
};

function fieldsOf(bytes: Uint8Array): Fields {
  const reader = new BinaryReader(bytes);
  const fields: Fields = new Map();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) fields.set(number, reader.bytes());
    else reader.skip(type);
  }
  return fields;
}

export async function openRepositorySession(
  url: string,
  access: ClusterAccess,
  ca: string,
): Promise<RepositorySession> {
  const client = new Client(new URL(url).host, credentials.createSsl(readFileSync(ca)), {
    "grpc.ssl_target_name_override": "localhost",
  });
  const metadata = new Metadata();
  const [user, host] = access.user.split("@");
  for (const [name, value] of Object.entries({ username: user, hostname: host, password: access.password }))
    metadata.set(`kopia-${name}`, value ?? "");
  const asIs = (bytes: Buffer) => bytes;
  const call = client.makeBidiStreamRequest("/kopia_repository.KopiaRepository/Session", asIs, asIs, metadata);
  let answered = Promise.withResolvers<Fields>();
  call.on("data", (bytes: Buffer) => answered.resolve(fieldsOf(bytes)));
  call.on("error", (error) => answered.reject(error));
  const ask = async (kind: number, request: Uint8Array): Promise<Fields> => {
    answered = Promise.withResolvers();
    call.write(Buffer.from(message([kind, request])));
    const fields = await answered.promise;
    const refused = fields.get(kinds.error);
    if (refused !== undefined) throw new Error(text.decode(fieldsOf(refused).get(2)));
    return fieldsOf(fields.get(kind) ?? new Uint8Array());
  };
  const flush = () => ask(kinds.flush, message());
  await ask(kinds.initialize, message([1, "test"]));
  return {
    async putManifest(labels, manifest) {
      const pairs = Object.entries(labels).map(([key, value]): [number, Uint8Array] => [
        2,
        message([1, key], [2, value]),
      ]);
      const made = await ask(kinds.putManifest, message([1, JSON.stringify(manifest)], ...pairs));
      await flush();
      return text.decode(made.get(1));
    },
    async deleteManifest(id) {
      await ask(kinds.deleteManifest, message([1, id]));
      await flush();
    },
    async emptyDirectory() {
      const directory = { stream: "kopia:directory", entries: [], summary: { size: 0, files: 0, dirs: 1 } };
      const made = await ask(kinds.writeContent, message([1, "k"], [2, JSON.stringify(directory)]));
      await flush();
      return text.decode(made.get(1));
    },
    [Symbol.dispose]() {
      call.cancel();
      client.close();
    },
  };
}
