import { createCipheriv, pbkdf2Sync, randomBytes } from "node:crypto";
import { chmod, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { armor, Encrypter, generateX25519Identity, identityToRecipient } from "age-encryption";
import { expect, test } from "vitest";
import { createEnvelope, openMasterKey } from "../../../src/actors/keys/master-key.ts";
import { readPassPhrase } from "../../../src/actors/keys/read-pass-phrase.ts";
import { createRepositoryKey, verifyRepositoryKey } from "../../../src/actors/keys/repository-key.ts";
import { createKeyFiles } from "../../../src/demo/age-keys.ts";
import { masterKeyOf } from "../../../src/wire/wal-file-header.ts";
import { temporaryDirectory } from "../../support/temporary-directory.ts";

async function keyFiles(directory: string, secret: string, form: "binary" | "armor" | "clear" = "binary") {
  const identity = await generateX25519Identity();
  const other = await generateX25519Identity();
  const encrypter = new Encrypter();
  for (const each of [other, identity]) encrypter.addRecipient(await identityToRecipient(each));
  const sealed = await encrypter.encrypt(secret);
  const encryptionKeyFile = join(directory, "key.age");
  const identityFile = join(directory, "identity");
  await writeFile(encryptionKeyFile, form === "clear" ? secret : form === "armor" ? armor.encode(sealed) : sealed);
  await writeFile(identityFile, `# a comment\n\n${identity}\n`, { mode: 0o640 });
  return { encryptionKeyFile, identityFile };
}

const refused = (promise: Promise<unknown>, text: RegExp) =>
  expect(promise).rejects.toMatchObject({ code: "KLIO-KEY-FILE", message: expect.stringMatching(text) });

test("a key file is read in binary and in armor, for several recipients, without blanks at its ends", async () => {
  await using dir = await temporaryDirectory();
  for (const form of ["binary", "armor"] as const)
    expect(await readPassPhrase(await keyFiles(dir.path, "  correct horse \n", form))).toBe("correct horse");
});

test("KLIO-KEY-FILE: clear text, an empty pass-phrase, a wrong or open identity file", async () => {
  await using dir = await temporaryDirectory();
  await refused(readPassPhrase(await keyFiles(dir.path, "correct horse", "clear")), /not encrypted with age/);
  await refused(readPassPhrase(await keyFiles(dir.path, " \n")), /empty pass-phrase/);
  const files = await keyFiles(dir.path, "correct horse");
  await chmod(files.identityFile, 0o644);
  await refused(readPassPhrase(files), /open to other users \(mode 644\)/);
  await chmod(files.identityFile, 0o600);
  await refused(readPassPhrase({ ...files, encryptionKeyFile: join(dir.path, "none") }), /cannot read .*none/);
  const foreign = await createKeyFiles(dir.path, "foreign");
  await refused(readPassPhrase({ ...files, identityFile: foreign.identityFile }), /no identity in .* opens/);
  const secret = "AGE-SECRET-KEY-1QQQQ";
  await writeFile(files.identityFile, secret);
  const error: unknown = await readPassPhrase(files).catch((reason: unknown) => reason);
  expect(`${(error as Error).message} ${String((error as Error).cause)}`).not.toContain(secret);
  await writeFile(files.identityFile, "password\n");
  await refused(readPassPhrase(files), /identity 1 .* no AGE-SECRET-KEY-1/);
  await writeFile(files.identityFile, "# nothing\n");
  await refused(readPassPhrase(files), /holds no identity/);
});

test("a master key comes out of its envelope, and each envelope has another one", async () => {
  const first = await createEnvelope("correct horse");
  const second = await createEnvelope("correct horse");
  expect(second.masterKey.id).not.toBe(first.masterKey.id);
  expect((await openMasterKey("correct horse", first.text)).id).toBe(first.masterKey.id);
  expect((await openMasterKey("correct horse", first.text)).key.equals(first.masterKey.key)).toBe(true);
  await expect(openMasterKey("battery staple", first.text)).rejects.toMatchObject({ code: "KLIO-KEY-MISMATCH" });
  expect(JSON.parse(first.text)).toMatchObject({
    kind: "KlioRepositoryConfig",
    apiVersion: "v1",
    encryptionKeys: [{ nonce: /^[0-9a-f]{24}$/, iterations: 600_000 }].map((entry) => ({
      ...entry,
      nonce: expect.stringMatching(entry.nonce),
    })),
  });
});

test("several entries are tried, each with the iterations that it states", async () => {
  const raw = randomBytes(32);
  const entry = (passPhrase: string, iterations: number) => {
    const salt = randomBytes(128);
    const nonce = randomBytes(12);
    const cipher = createCipheriv("aes-256-gcm", pbkdf2Sync(passPhrase, salt, iterations, 32, "sha256"), nonce);
    const cipherText = Buffer.concat([cipher.update(raw), cipher.final(), cipher.getAuthTag()]);
    const hex = (bytes: Buffer) => bytes.toString("hex");
    return { nonce: hex(nonce), cipherText: hex(cipherText), salt: hex(salt), iterations };
  };
  const encryptionKeys = [entry("first", 1000), entry("second", 7)];
  const envelope = (keys: unknown) =>
    JSON.stringify({ kind: "KlioRepositoryConfig", apiVersion: "v1", encryptionKeys: keys });
  expect((await openMasterKey("second", envelope(encryptionKeys))).id).toBe(masterKeyOf(raw).id);
  const damagedTexts = [
    "",
    "{}",
    "[]",
    envelope([]),
    envelope([{ ...encryptionKeys[0], iterations: 0 }]),
    envelope([{ ...encryptionKeys[0], nonce: "zz" }]),
    envelope([{ ...encryptionKeys[0], cipherText: "00" }]),
    envelope([null]),
  ];
  for (const text of damagedTexts)
    await expect(openMasterKey("second", text), text).rejects.toMatchObject({ code: "KLIO-REPOSITORY" });
});

test("a new directory has no key, then the one that was made; files without an envelope are refused", async () => {
  await using dir = await temporaryDirectory();
  const directory = join(dir.path, "wal");
  expect(await verifyRepositoryKey(directory, "correct horse")).toBeUndefined();
  await mkdir(join(directory, "lost+found"), { recursive: true });
  expect(await verifyRepositoryKey(directory, "correct horse")).toBeUndefined();
  const made = await createRepositoryKey(directory, "correct horse");
  expect((await verifyRepositoryKey(directory, "correct horse"))?.id).toBe(made.id);
  await expect(verifyRepositoryKey(directory, "wrong")).rejects.toMatchObject({ code: "KLIO-KEY-MISMATCH" });
  const path = join(directory, "repository.config");
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  expect((await readdir(directory)).sort()).toEqual(["lost+found", "repository.config"]);
  expect(await readFile(path, "utf8")).not.toContain("correct horse");
  const other = join(dir.path, "other");
  await mkdir(join(other, "alpha"), { recursive: true });
  await expect(verifyRepositoryKey(other, "correct horse")).rejects.toMatchObject({ code: "KLIO-REPOSITORY" });
});
