// An S3 server for one test file, and stores on it.
import { type ObjectStore, openObjectStore } from "../../src/actors/s3/object-store.ts";
import type { S3Settings } from "../../src/actors/s3/s3-client.ts";
import { findTool } from "../../src/config/tools.ts";
import { type LocalS3, startS3 } from "../../src/demo/local-s3.ts";

export type TestS3 = AsyncDisposable & { s3: LocalS3; settings: S3Settings; objects: ObjectStore };

/** `tls`: then the settings trust its authority. */
export async function testS3(directory: string, tls?: { cert: string; key: string; caCert: string }): Promise<TestS3> {
  const s3 = await startS3({
    directory,
    bucket: "klio-test",
    executable: findTool("versitygw", process.env),
    ...(tls !== undefined && { tls }),
  });
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = s3;
  const settings = {
    ...{ bucketName: bucket, region, endpoint, accessKeyId, secretAccessKey },
    ...(tls !== undefined && { customCaBundleFile: tls.caCert }),
  };
  const objects = openObjectStore(settings);
  return {
    s3,
    settings,
    objects,
    async [Symbol.asyncDispose]() {
      objects.close();
      await s3[Symbol.asyncDispose]();
    },
  };
}
