// `klio doctor s3`: what the store of tier 2 really does, and which settings follow from it.
import { randomBytes } from "node:crypto";
import { probeStore } from "../actors/s3/probe-store.ts";
import type { S3Config } from "../config/config.ts";
import { type Advice, adviseStore } from "../domain/store-advice.ts";

export type DoctorReport = Advice & {
  bucket: string;
  endpoint: string;
  prefix: string;
  roundTripMs: number;
  /** Keys that could not be removed again. */
  leftOver: string[];
};

/** Rejects with the KLIO-S3-… code of a store that cannot be asked at all. */
export async function examineStore(s3: S3Config): Promise<DoctorReport> {
  const { probes, roundTripMs, leftOver } = await probeStore(s3, s3.prefix, randomBytes(6).toString("hex"));
  const { bucketName: bucket, endpoint = `AWS, ${s3.region}`, prefix } = s3;
  return { bucket, endpoint, prefix, roundTripMs, leftOver, ...adviseStore(probes, s3) };
}
