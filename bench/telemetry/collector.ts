// The collector of the telemetry bench, a process of its own so that its work is not counted. Arguments: CA, certificate and
// key. Prints its port; at the end of its input it prints how many exports it got, and ends.
import { otlpOverHttp } from "../../test/support/otlp-receiver.ts";

const [, , caCert = "", cert = "", key = ""] = process.argv;
await using receiver = await otlpOverHttp({ caCert, server: { cert, key } });
process.stdout.write(`${receiver.port}\n`);
for await (const _ of process.stdin);
process.stdout.write(`${receiver.requests.length}\n`);
