// Segments as a real PostgreSQL writes them in bulk: rows of numbers, times and hashes, and an index over the hashes in no order.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { startPostgres } from "../src/demo/local-postgres.ts";

const ROWS_AT_ONCE = 1_000_000;

/** Gives the bytes of the first `segments` segments of 16 MiB of a new cluster, by name. Dispose it when they are taken. */
export async function bulkWal(directory: string, segments: number) {
  const postgres = await startPostgres({
    directory,
    version: 15,
    settings: { max_wal_size: "16GB", checkpoint_timeout: "1h", autovacuum: "off", fsync: "off" },
  });
  await postgres.query("create table bulk (id bigint, token text, at timestamptz, amount float8)");
  await postgres.query("create index on bulk (token)");
  const isEnough = `select pg_current_wal_insert_lsn() > '0/0'::pg_lsn + ${segments + 1} * 16777216::numeric as is_enough`;
  for (let from = 0; (await postgres.query(isEnough))[0]?.is_enough !== true; from += ROWS_AT_ONCE)
    await postgres.query(
      `insert into bulk select n, md5(n::text), now() + n * interval '1 s', random()
         from generate_series($1::int, $1::int + ${ROWS_AT_ONCE - 1}) n`,
      [from],
    );
  return {
    read: (name: string): Buffer => readFileSync(join(postgres.dataDirectory, "pg_wal", name)),
    [Symbol.asyncDispose]: () => postgres[Symbol.asyncDispose](),
  };
}
