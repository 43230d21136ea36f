// Who uploads, in the metadata of a call: by it a server tells a sender that came back from another one.
import { randomUUID } from "node:crypto";
import type { Metadata } from "@grpc/grpc-js";

/** `sender`: a process, by a random name of its own. `turn`: counts its uploads; a later one stands for all before it. */
export type UploadId = { sender: string; turn: number };

const KEY = "klio-upload";

/** Names the uploads of one sender, in their order. */
export function uploadIds(): () => UploadId {
  const sender = randomUUID();
  let turn = 0;
  return () => {
    turn += 1;
    return { sender, turn };
  };
}

export function setUploadId(metadata: Metadata, { sender, turn }: UploadId): void {
  metadata.set(KEY, `${sender}/${turn}`);
}

/** Undefined for a sender that does not tell. */
export function uploadIdOf({ metadata }: { metadata: Metadata }): UploadId | undefined {
  const [sent] = metadata.get(KEY);
  const [, sender, turn] = /^([0-9a-f-]{36})\/(\d{1,15})$/.exec(typeof sent === "string" ? sent : "") ?? [];
  return sender === undefined ? undefined : { sender, turn: Number(turn) };
}
