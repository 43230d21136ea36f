// The queue hands its tasks out in the order in which they were stored. When one cluster has more of them than fit in hand, those of
// the others are looked for by their subjects, so that nobody waits for a backlog that is not his.
import type { StoredMsg } from "nats";
import { clusterOfSubject, type TaskKind } from "../../wire/subject.ts";
import { isNotFound } from "./classify.ts";
import type { Queue } from "./queue.ts";

/** So many tasks of each cluster are in hand at least, if there are so many. */
const SHARE = 16;
/** Messages of a cluster that are looked at in one go, those that are known among them. */
const LOOKS = 64;

export type InHandView = {
  /** Of a cluster, in hand now. */
  count(cluster: string): number;
  total(): number;
  /** In hand, or put off until later. */
  isKnown(sequence: number): boolean;
};

/**
 * Messages of clusters that have fewer in hand than their share, in the order of the queue. They stay in it: whoever takes one
 * removes it when it is settled. Rejects when the queue does not answer.
 */
export async function lookAhead(queue: Queue, kind: TaskKind, inHand: InHandView): Promise<StoredMsg[]> {
  const stream = queue.names.stream[kind];
  const { state } = await queue.jsm.streams.info(stream, { subjects_filter: ">" });
  if (state.messages <= inHand.total()) return [];
  const found: StoredMsg[] = [];
  for (const [subject, stored] of Object.entries(state.subjects ?? {})) {
    const held = inHand.count(clusterOfSubject(subject));
    // All it has is in hand: through an outage of tier 2 it would be asked for message by message, each time anew.
    if (stored <= held) continue;
    let missing = SHARE - held;
    let from = 1;
    for (let looks = 0; missing > 0 && looks < LOOKS; looks++) {
      const message = await nextOf(queue, stream, subject, from);
      if (message === undefined) break;
      from = message.seq + 1;
      if (inHand.isKnown(message.seq)) continue;
      found.push(message);
      missing -= 1;
    }
  }
  return found;
}

async function nextOf(queue: Queue, stream: string, subject: string, from: number): Promise<StoredMsg | undefined> {
  // The client's types know a request by sequence alone.
  const request = { seq: from, next_by_subj: subject };
  try {
    return await queue.jsm.streams.getMessage(stream, request);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
