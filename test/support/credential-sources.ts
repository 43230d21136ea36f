// Where S3 credentials come from when the configuration has none, as peers on true sockets.
import { createHash, createHmac } from "node:crypto";
import { createServer, type IncomingHttpHeaders, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { vi } from "vitest";

/** Nothing of this machine's own takes part. An empty value: the variable is unset. */
export function surroundings(directory: string, env: Record<string, string>): void {
  const bare = { HOME: directory, AWS_EC2_METADATA_DISABLED: "true", AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "" };
  for (const [name, value] of Object.entries({ ...bare, ...env })) vi.stubEnv(name, value === "" ? undefined : value);
}

export type Peer = AsyncDisposable & { url: string };

export async function peer(listener: RequestListener): Promise<Peer> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString();

type Keys = { accessKeyId?: string | undefined; secretAccessKey?: string | undefined };

/** Temporary credentials of one key pair: each `issue` has a session token of its own. */
export function sessions({ accessKeyId, secretAccessKey }: Keys, expiration: () => string) {
  const issued: string[] = [];
  return {
    issued,
    issue() {
      const token = `session-${issued.length + 1}`;
      issued.push(token);
      return { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, Token: token, Expiration: expiration() };
    },
  };
}

/** The metadata service of an instance in its second version: nothing is told without a token of its own. */
export async function instanceMetadata(role: string, credentials: () => object): Promise<Peer & { asked: string[] }> {
  const asked: string[] = [];
  const root = "/latest/meta-data/iam/security-credentials/";
  const service = await peer(({ method = "", url = "", headers }, response) => {
    asked.push(`${method} ${url}`);
    if (
      method === "PUT" &&
      url === "/latest/api/token" &&
      headers["x-aws-ec2-metadata-token-ttl-seconds"] !== undefined
    )
      return response.end("token of the service");
    if (headers["x-aws-ec2-metadata-token"] !== "token of the service") return response.writeHead(401).end();
    if (url === root) return response.end(role);
    if (url === `${root}${role}`) return response.end(JSON.stringify({ Code: "Success", ...credentials() }));
    return response.writeHead(404).end();
  });
  return { ...service, asked };
}

/**
 * For a server that knows no session tokens: the same request signed with the keys alone. The peer in front of it looks at the
 * token; the body must not be part of the signature's chain.
 */
export function withoutSession({ accessKeyId = "", secretAccessKey = "" }: Keys, region: string) {
  return ({
    method,
    url,
    headers,
  }: {
    method: string;
    url: URL;
    headers: IncomingHttpHeaders;
  }): IncomingHttpHeaders => {
    const { "x-amz-security-token": _, authorization: __, ...kept } = headers;
    const at = String(kept["x-amz-date"]);
    const signed = Object.keys(kept)
      .filter((name) => name === "host" || name.startsWith("x-amz-"))
      .toSorted();
    const canonical = [
      method,
      url.pathname,
      url.search.slice(1).split("&").toSorted().join("&"),
      ...signed.map((name) => `${name}:${String(kept[name]).trim()}`),
      "",
      signed.join(";"),
      String(kept["x-amz-content-sha256"]),
    ].join("\n");
    const scope = [at.slice(0, 8), region, "s3", "aws4_request"];
    const digest = createHash("sha256").update(canonical).digest("hex");
    const hmac = (key: string | Buffer, text: string) => createHmac("sha256", key).update(text).digest();
    const key = scope.reduce<string | Buffer>(hmac, `AWS4${secretAccessKey}`);
    const signature = hmac(key, ["AWS4-HMAC-SHA256", at, scope.join("/"), digest].join("\n")).toString("hex");
    const credential = `${accessKeyId}/${scope.join("/")}`;
    return {
      ...kept,
      authorization: `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${signed.join(";")}, Signature=${signature}`,
    };
  };
}
