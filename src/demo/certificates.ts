// A certificate authority, a server certificate and client certificates, made afresh for a demo or a test.
import "reflect-metadata"; // what @peculiar/x509 is built on; must be loaded first
import { createHash, randomBytes, type webcrypto } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

type KeyPairFiles = { cert: string; key: string };
export type Certificates = {
  caCert: string;
  server: KeyPairFiles;
  /** Files of the client certificate with CN `user@cluster`. Throws for a cluster that was not named. */
  client(cluster: string): KeyPairFiles;
  /** A client certificate with any common name, from this authority; `days` from now on which it begins and ends to be valid. */
  issue(name: string, subject: string, days?: { from: number; to: number }): Promise<KeyPairFiles>;
};

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;

type Authority = { certificate: X509Certificate; keys: webcrypto.CryptoKeyPair };

const YEAR = { from: -1, to: 365 };
const validity = ({ from, to } = YEAR) => ({
  notBefore: new Date(Date.now() + from * DAY_MS),
  notAfter: new Date(Date.now() + to * DAY_MS),
});
const serialNumber = () => `01${randomBytes(8).toString("hex")}`;
const newKeys = () => crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);

async function createAuthority(name: string): Promise<Authority> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${name}`,
    ...validity(),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 1, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ],
  });
  return { certificate, keys };
}

async function writePair(
  file: string,
  authority: Authority,
  subject: string,
  server: boolean,
  days = YEAR,
): Promise<KeyPairFiles> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${subject}`,
    issuer: authority.certificate.subject,
    ...validity(days),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: authority.keys.privateKey,
    extensions: [
      new BasicConstraintsExtension(false),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([server ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth]),
      ...(server
        ? [
            new SubjectAlternativeNameExtension([
              { type: "dns", value: "localhost" },
              { type: "ip", value: "127.0.0.1" },
              { type: "ip", value: "::1" },
            ]),
          ]
        : []),
    ],
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  const lines = pkcs8.match(/.{1,64}/g) ?? [];
  const files = { cert: `${file}.crt`, key: `${file}.key` };
  writeFileSync(files.cert, certificate.toString("pem"));
  writeFileSync(files.key, `-----BEGIN PRIVATE KEY-----\n${lines.join("\n")}\n-----END PRIVATE KEY-----\n`, {
    mode: 0o600,
  });
  return files;
}

/** Writes PEM files (keys 0600) into `directory`. The server certificate is valid for localhost, 127.0.0.1 and ::1. */
export async function createCertificates(
  directory: string,
  options: { clusters: readonly string[]; user?: string; authority?: string },
): Promise<Certificates> {
  mkdirSync(directory, { recursive: true });
  const authority = await createAuthority(options.authority ?? "Klio demo CA");
  const caCert = join(directory, "ca.crt");
  writeFileSync(caCert, authority.certificate.toString("pem"));
  const clients = new Map<string, KeyPairFiles>();
  for (const cluster of options.clusters) {
    const name = createHash("sha256").update(cluster).digest("hex").slice(0, 8);
    const subject = `${options.user ?? "klio"}@${cluster}`;
    clients.set(cluster, await writePair(join(directory, `client-${name}`), authority, subject, false));
  }
  return {
    caCert,
    server: await writePair(join(directory, "server"), authority, "klio-server", true),
    client(cluster) {
      const files = clients.get(cluster);
      if (files === undefined) throw new Error(`no certificate was made for cluster ${cluster}`);
      return files;
    },
    issue: (name, subject, days) => writePair(join(directory, name), authority, subject, false, days),
  };
}
