// From what a store showed to what Klio should do with it: pure, so that each verdict can be read off a table of answers.

/** `ignored`: it took the request and did not do what it was asked for. `wrong`: its answer was not true. */
export type ProbeResult = "ok" | "ignored" | "refused" | "denied" | "wrong";
export type ProbeName =
  | "clock"
  | "crc32"
  | "sha256"
  | "writeOnce"
  | "replaceByTag"
  | "tags"
  | "list"
  | "read"
  | "range"
  | "parts"
  | "abortParts"
  | "remove";
export type Probe = { name: ProbeName; result: ProbeResult; detail: string };

/** Options of the server, as they are or as they should be. */
export type StoreSettings = { checksum: "crc32" | "sha256"; conditionalWrites: boolean };

export type Advice = {
  checks: { name: ProbeName; what: string; status: "ok" | "worked around" | "failed"; detail: string }[];
  settings: { key: string; value: string; configured: string; why: string }[];
  /** `change`: fit with other settings than those that are configured. `unfit`: with none. */
  verdict: "fit" | "change" | "unfit";
};

const WHAT: Readonly<Record<ProbeName, string>> = {
  clock: "its clock agrees with ours",
  crc32: "refuses bytes that do not match their CRC-32",
  sha256: "refuses bytes that do not match their SHA-256",
  writeOnce: "refuses to replace an object when asked (If-None-Match)",
  replaceByTag: "replaces only the object with the named ETag (If-Match)",
  tags: "tells the same ETag when writing, listing and reading",
  list: "lists what was just written",
  read: "gives back the bytes it got",
  range: "gives the asked range of bytes",
  parts: "takes an object in parts",
  abortParts: "forgets an upload that was given up",
  remove: "deletes, and lists no more what was deleted",
};

/** Without these no setting helps. */
const NEEDED: ReadonlySet<ProbeName> = new Set(["clock", "tags", "list", "read", "range", "parts", "remove"]);

export function adviseStore(probes: readonly Probe[], configured: StoreSettings): Advice {
  const found = new Map(probes.map((probe) => [probe.name, probe]));
  const isOk = (name: ProbeName) => found.get(name)?.result === "ok";
  const told = (name: ProbeName) => found.get(name)?.detail ?? "not tried";
  const hasCondition = isOk("writeOnce") && isOk("replaceByTag");
  const checksum = isOk("crc32") ? "crc32" : "sha256";
  const isUnchecked = !isOk("crc32") && !isOk("sha256");
  const wanted: StoreSettings = { checksum, conditionalWrites: hasCondition };
  const checks = probes.map(({ name, result, detail }) => {
    const isFatal = NEEDED.has(name) || (isUnchecked && (name === "crc32" || name === "sha256"));
    const status = result === "ok" ? "ok" : isFatal ? "failed" : "worked around";
    return { name, what: WHAT[name], status, detail } as const;
  });
  const settings = [
    {
      key: "tier2.s3.checksum",
      value: wanted.checksum,
      configured: configured.checksum,
      why: isOk("crc32")
        ? "the store verifies CRC-32, which costs the least"
        : isUnchecked
          ? "the store verifies nothing: damage on the way would be stored"
          : `no CRC-32 here (${told("crc32")}), SHA-256 is verified`,
    },
    {
      key: "tier2.s3.conditional_writes",
      value: String(wanted.conditionalWrites),
      configured: String(configured.conditionalWrites),
      why: hasCondition
        ? "the store keeps two servers from replacing each other's objects"
        : `the store does not (${isOk("writeOnce") ? told("replaceByTag") : told("writeOnce")}): Klio looks before it writes, and no second server may use this prefix`,
    },
  ];
  const isUnfit = checks.some(({ status }) => status === "failed");
  const hasChange = settings.some(({ value, configured: is }) => value !== is);
  return { checks, settings, verdict: isUnfit ? "unfit" : hasChange ? "change" : "fit" };
}
