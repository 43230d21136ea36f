import { expect, test } from "vitest";
import { emptyLine, lineLength, lineUp, takeTurn } from "../../../src/domain/fair-line.ts";
import type { OffloadTask } from "../../../src/domain/offload-task.ts";

const task = (id: number, cluster: string, bytes = 1): OffloadTask => ({
  id,
  cluster,
  name: `n${id}`,
  bytes,
  deliveries: 1,
  traceparent: "",
  deadLetter: 0,
  spread: 0,
});

function order(tasks: OffloadTask[]): number[] {
  let line = tasks.reduce(lineUp, emptyLine);
  const ids: number[] = [];
  for (;;) {
    const taken = takeTurn(
      line,
      () => true,
      () => true,
    );
    if (taken === undefined) return ids;
    ids.push(taken.task.id);
    line = taken.line;
  }
}

test("clusters take turns, within a cluster first come is first served", () => {
  const line = [task(1, "a"), task(2, "a"), task(3, "a"), task(4, "b"), task(5, "c"), task(6, "b")];
  expect(order(line)).toEqual([1, 4, 5, 2, 6, 3]);
});

test("a task that does not fit is not overtaken, a busy cluster is passed over", () => {
  const line = [task(1, "a", 100), task(2, "b", 1)].reduce(lineUp, emptyLine);
  expect(
    takeTurn(
      line,
      () => true,
      ({ bytes }) => bytes < 10,
    ),
  ).toBeUndefined();
  expect(
    takeTurn(
      line,
      (cluster) => cluster !== "a",
      () => true,
    )?.task.id,
  ).toBe(2);
  expect(lineLength(line)).toBe(2);
});
