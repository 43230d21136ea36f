// An operator with one account and its users, as `nsc` would make them: JWTs that are signed with nkeys, and files of credentials.
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { nkeys } from "nats";

type KeyPair = ReturnType<typeof nkeys.createUser>;
const base64 = (text: string | Uint8Array) => Buffer.from(text).toString("base64url");

function signed(issuer: KeyPair, subject: KeyPair, name: string, nats: object, more: object = {}): string {
  const sub = subject.getPublicKey();
  const claims = {
    ...{
      jti: randomBytes(16).toString("hex"),
      iat: Math.floor(Date.now() / 1_000),
      iss: issuer.getPublicKey(),
      name,
      sub,
    },
    ...{ ...more, nats: { ...nats, version: 2 } },
  };
  const body = `${base64('{"typ":"JWT","alg":"ed25519-nkey"}')}.${base64(JSON.stringify(claims))}`;
  return `${body}.${base64(issuer.sign(new TextEncoder().encode(body)))}`;
}

const unlimited = { subs: -1, data: -1, payload: -1 };

export type Operator = {
  /** Lines of a server's configuration that trust this operator and know its account. */
  access: string;
  /** Writes a file of credentials. `expiresAt`: seconds since the epoch. `deny`: subjects that the user may not publish to. */
  user(name: string, more?: { expiresAt?: number; deny?: string[] }): string;
};

export function natsOperator(directory: string): Operator {
  const operator = nkeys.createOperator();
  const account = nkeys.createAccount();
  const system = nkeys.createAccount();
  const common = { ...unlimited, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
  const limits = { ...common, mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
  const operatorJwt = signed(operator, operator, "operator", { type: "operator" });
  const accountJwt = signed(operator, account, "account", { type: "account", limits });
  const systemJwt = signed(operator, system, "system", { type: "account", limits: common });
  return {
    access: `operator: ${operatorJwt}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: { ${account.getPublicKey()}: ${accountJwt}, ${system.getPublicKey()}: ${systemJwt} }
`,
    user(name, { expiresAt, deny = [] } = {}) {
      const user = nkeys.createUser();
      const rights = { type: "user", ...unlimited, pub: { deny }, sub: {} };
      const jwt = signed(account, user, name, rights, expiresAt === undefined ? {} : { exp: expiresAt });
      const file = join(directory, `${name}.creds`);
      const seed = new TextDecoder().decode(user.getSeed());
      writeFileSync(
        file,
        `-----BEGIN NATS USER JWT-----\n${jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n${seed}\n------END USER NKEY SEED------\n`,
        { mode: 0o600 },
      );
      return file;
    },
  };
}
