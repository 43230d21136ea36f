// The other end of the administration socket.
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { ChannelCredentials, Client } from "@grpc/grpc-js";
import { unwrap } from "../../domain/outcome.ts";
import { KlioError } from "../../errors.ts";
import { Admin } from "../../proto/generated/klio/wal/v1/admin_pb.ts";
import { codecOf } from "../../proto/grpc-service.ts";
import { askOnce, type CallOptions } from "./wal-call.ts";

type AnyMethod<I extends DescMessage, O extends DescMessage> = { name: string; input: I; output: O };

export type AdminClient = {
  /** Rejects with the server's KlioError, or KLIO-SERVER-DOWN when nobody answers. */
  call<I extends DescMessage, O extends DescMessage>(
    method: AnyMethod<I, O>,
    request: MessageInitShape<I>,
    options?: CallOptions,
  ): Promise<MessageShape<O>>;
  close(): void;
};

export const adminMethods = Admin.method;

export function connectAdmin(socketPath: string): AdminClient {
  const client = new Client(`unix:${socketPath}`, ChannelCredentials.createInsecure(), {
    "grpc.max_receive_message_length": -1, // this machine's own server
  });
  return {
    async call(method, request, options) {
      const path = `/${Admin.typeName}/${method.name}`;
      const { serialize } = codecOf(method.input);
      const { deserialize } = codecOf(method.output);
      const outcome = await askOnce(
        client,
        `the server on ${socketPath}`,
        { path, serialize, deserialize },
        create(method.input, request),
        options,
      );
      if (outcome.kind !== "ok" && outcome.code === "KLIO-SERVER-DOWN")
        throw new KlioError("KLIO-SERVER-DOWN", `no answer on ${socketPath}: ${outcome.reason}`, {
          hint: "run this where the server runs, as its user; --socket-path names the socket",
        });
      return unwrap(outcome);
    },
    close: () => client.close(),
  };
}
