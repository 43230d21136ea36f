// The users of a repository server: one per cluster, each with a random password that only this process knows. The server
// program reads their hashes from a file of ours; nothing is written into the repository, so a read-only one has users, too.
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { requireClusterName } from "../../domain/cluster-name.ts";
import { KlioError } from "../../errors.ts";
import { writePrivateFile } from "./private-file.ts";

const PASSWORD_BYTES = 32;
const SALT_BYTES = 16;

/** A line of the password file. The password has 256 random bits, so a plain salted hash cannot be searched. */
function passwordLine(user: string, password: string): string {
  const salt = randomBytes(SALT_BYTES);
  const hash = createHash("sha1").update(password).update(salt).digest();
  return `${user}:{SSHA}${Buffer.concat([hash, salt]).toString("base64")}`;
}

/** Throws KLIO-NAME-INVALID for what would not be a user of the repository server. */
export function repositoryUser(user: string, cluster: string): string {
  if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}$/.test(user))
    throw new KlioError("KLIO-NAME-INVALID", `not a user name: ${JSON.stringify(user)}`);
  return `${user}@${requireClusterName(cluster)}`;
}

export class RepositoryUsers {
  readonly file: string;
  private readonly passwords = new Map<string, string>();
  private readonly lines: Map<string, string>;
  private writing: Promise<void> = Promise.resolve();

  private constructor(file: string, lines: Map<string, string>) {
    this.file = file;
    this.lines = lines;
  }

  /** Users of an earlier process keep their passwords until they ask for new ones: their backups may still run. */
  static async open(file: string): Promise<RepositoryUsers> {
    const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
    const lines = new Map(
      text
        .split("\n")
        .filter((line) => line.includes(":"))
        .map((line) => [line.slice(0, line.indexOf(":")), line]),
    );
    const users = new RepositoryUsers(file, lines);
    await users.write();
    return users;
  }

  /** The password of a user; `isNew`: the server must be told. Rejects when the file cannot be written. */
  async password(user: string): Promise<{ password: string; isNew: boolean }> {
    const known = this.passwords.get(user);
    if (known !== undefined) {
      await this.writing;
      return { password: known, isNew: false };
    }
    const password = randomBytes(PASSWORD_BYTES).toString("base64url");
    this.passwords.set(user, password);
    this.lines.set(user, passwordLine(user, password));
    await this.write();
    return { password, isNew: true };
  }

  /** Forgets a password that the server never learned. */
  forget(user: string): void {
    this.passwords.delete(user);
  }

  private write(): Promise<void> {
    this.writing = this.writing
      .catch(() => undefined) // the one that asked for it was told
      .then(() => writePrivateFile(this.file, [...this.lines.values(), ""].join("\n")));
    return this.writing;
  }
}
