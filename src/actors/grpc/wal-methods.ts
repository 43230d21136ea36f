// The methods of the WAL service as grpc-js wants them: path and codec. The two that carry blocks keep their requests raw.
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { WAL } from "../../proto/generated/klio/wal/v1/wal_pb.ts";
import { codecOf, grpcDefinition, rawCodec } from "../../proto/grpc-service.ts";

export const WAL_SERVICE = WAL.typeName;
/** For `addService`: requests of Put and Stream arrive as bytes. */
export const walDefinition = grpcDefinition(WAL, ["Put", "Stream"]);

export type Method<Request, Response> = {
  path: string;
  serialize: (request: Request) => Buffer;
  deserialize: (bytes: Buffer) => Response;
};
export type RawMethod<Response> = Method<Buffer, Response>;

type WalMethods = typeof WAL.method;

function methodOf<I extends DescMessage, O extends DescMessage>(method: {
  name: string;
  input: I;
  output: O;
}): Method<MessageShape<I>, MessageShape<O>> {
  return {
    path: `/${WAL.typeName}/${method.name}`,
    serialize: codecOf(method.input).serialize,
    deserialize: codecOf(method.output).deserialize,
  };
}

function rawMethodOf<O extends DescMessage>(method: { name: string; output: O }): RawMethod<MessageShape<O>> {
  return {
    path: `/${WAL.typeName}/${method.name}`,
    serialize: rawCodec.serialize,
    deserialize: codecOf(method.output).deserialize,
  };
}

const methods: WalMethods = WAL.method;

export const walMethods = {
  put: rawMethodOf(methods.put),
  stream: rawMethodOf(methods.stream),
  get: methodOf(methods.get),
  getMetadata: methodOf(methods.getMetadata),
  requestWalStart: methodOf(methods.requestWALStart),
  resetWalStream: methodOf(methods.resetWALStream),
  closeBackup: methodOf(methods.closeBackup),
  openRepository: methodOf(methods.openRepository),
  maintainBackups: methodOf(methods.maintainBackups),
  listWal: methodOf(methods.listWAL),
  reportSource: methodOf(methods.reportSource),
  getStatus: methodOf(methods.getStatus),
  reportRead: methodOf(methods.reportRead),
};
