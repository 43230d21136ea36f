// What an error of the NATS client means for us.
import type { NatsError } from "nats";
import { type Failure, failure } from "../../domain/outcome.ts";
import { errorText } from "../../errors.ts";

/** JetStream's answer "no such stream, consumer or message". */
export function isNotFound(error: unknown): boolean {
  return error instanceof Error && (error as NatsError).api_error?.code === 404;
}

/** Every trouble with the queue is passing: tasks are hints, and the reconciler makes up for lost ones. */
export function classifyQueue(error: unknown, what: string): Failure {
  return failure("KLIO-QUEUE-DOWN", `${what}: ${errorText(error)}`);
}
