import { expect, test } from "vitest";
import { watchContact } from "../../../src/roles/source-contact.ts";
import type { Reading } from "../../../src/telemetry/instruments.ts";

test("the time of the last word, per cluster; an older one of the store does not bring it back", () => {
  let nowMs = 5_000;
  let read: () => Iterable<Reading> = () => [];
  const contact = watchContact({
    telemetry: {
      observe: (_, reader) => {
        read = reader;
        return () => {
          read = () => [];
        };
      },
    },
    now: () => nowMs,
  });
  const values = () => Object.fromEntries([...read()].map(({ value, labels }) => [labels?.cluster_name, value]));
  expect(values()).toEqual({});
  contact.known("stored", 1_000);
  contact.heard("live");
  nowMs = 9_500;
  expect(values()).toEqual({ stored: 1, live: 5 });
  contact.heard("live");
  contact.known("live", 2_000);
  expect(values()).toEqual({ stored: 1, live: 9.5 });
  contact[Symbol.dispose]();
  expect(values()).toEqual({});
});
