// Whether two files that arrive in pieces hold the same bytes.

/** `prefix`: the first one is the beginning of the second; `extension`: the other way round. */
export type Relation = "same" | "prefix" | "extension" | "different";

/** Reads both only as far as needed, and closes them. Rejects with what either rejects with. */
export async function compareContent(
  first: AsyncIterable<Uint8Array>,
  second: AsyncIterable<Uint8Array>,
): Promise<Relation> {
  const a = first[Symbol.asyncIterator]();
  const b = second[Symbol.asyncIterator]();
  let left: Uint8Array | undefined = new Uint8Array();
  let right: Uint8Array | undefined = new Uint8Array();
  try {
    for (;;) {
      while (left !== undefined && left.length === 0) left = await nextOf(a);
      while (right !== undefined && right.length === 0) right = await nextOf(b);
      if (left === undefined) return right === undefined ? "same" : "prefix";
      if (right === undefined) return "extension";
      const bytes = Math.min(left.length, right.length);
      if (Buffer.compare(left.subarray(0, bytes), right.subarray(0, bytes)) !== 0) return "different";
      left = left.subarray(bytes);
      right = right.subarray(bytes);
    }
  } finally {
    await a.return?.();
    await b.return?.();
  }
}

async function nextOf(blocks: AsyncIterator<Uint8Array>): Promise<Uint8Array | undefined> {
  const { done, value } = await blocks.next();
  return done === true ? undefined : value;
}
