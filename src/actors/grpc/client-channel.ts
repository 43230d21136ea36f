// One gRPC connection of a client, with its certificate.
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { checkServerIdentity, createSecureContext } from "node:tls";
import { ChannelCredentials, Client, type Interceptor } from "@grpc/grpc-js";
import { parseCommonName } from "../../domain/cluster-name.ts";
import { errorText, KlioError } from "../../errors.ts";
import { MAX_MESSAGE_BYTES } from "../../wire/wal-message.ts";
import type { Caller } from "./handlers.ts";

/** PEM files. `serverCertPath` holds all that is trusted: the server's certificate itself, or an authority's. */
export type ClientTlsFiles = { serverCertPath: string; clientCertPath: string; clientKeyPath: string };

/** What one server may have on its way to us, per stream; honoured by grpc-js on this side. */
const RECEIVE_WINDOW_BYTES = 8 << 20;
const RECONNECT = { "grpc.initial_reconnect_backoff_ms": 200, "grpc.max_reconnect_backoff_ms": 5_000 };

/** The host in `host:port`, without the brackets of an IPv6 address. */
function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":")).replace(/^\[(.*)\]$/, "$1");
}

/**
 * A lazy connection to `address` (`host:port`), and whose certificate it shows. Rejects with KLIO-CERTIFICATE. The
 * caller closes it.
 */
export async function openChannel(
  address: string,
  tls: ClientTlsFiles,
  interceptors: Interceptor[],
): Promise<{ client: Client; caller: Caller }> {
  const read = (file: string) =>
    readFile(file).catch((cause: unknown) => {
      throw new KlioError("KLIO-CERTIFICATE", `cannot read ${file}: ${errorText(cause)}`, { cause });
    });
  const [ca, cert, key] = await Promise.all([tls.serverCertPath, tls.clientCertPath, tls.clientKeyPath].map(read));
  try {
    // Without the flag a trusted certificate that an authority issued would need that authority, too.
    const context = createSecureContext({ ca, cert, key, allowPartialTrustChain: true });
    const host = hostOf(address);
    const cn = /^CN=(.*)$/m.exec(new X509Certificate(cert ?? "").subject)?.[1] ?? "";
    const caller = parseCommonName(cn);
    if (caller === undefined)
      throw new KlioError("KLIO-CERTIFICATE", `${tls.clientCertPath}: the CN ${JSON.stringify(cn)} is no user@cluster`);
    const credentials = ChannelCredentials.createFromSecureContext(context, {
      checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
    });
    const client = new Client(address, credentials, {
      "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
      "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
      "grpc-node.flow_control_window": RECEIVE_WINDOW_BYTES,
      ...RECONNECT,
      // grpc-js would send an address as a TLS server name, which is not allowed and warned about.
      ...(isIP(host) > 0 && { "grpc.ssl_target_name_override": "klio-server" }),
      interceptors,
    });
    return { client, caller };
  } catch (cause) {
    if (cause instanceof KlioError) throw cause;
    throw new KlioError("KLIO-CERTIFICATE", `${tls.clientCertPath}: ${errorText(cause)}`, { cause });
  }
}
