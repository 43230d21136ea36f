// Typed placeholders for the IO of a machine; the composition root provides the real actors.
import { type CallbackActorLogic, type EventObject, fromCallback, fromPromise, type PromiseActorLogic } from "xstate";

export function unprovided<Output, Input>(name: string): PromiseActorLogic<Output, Input> {
  return fromPromise<Output, Input>(async () => {
    throw new Error(`actor "${name}" was not provided`);
  });
}

/** For long-lived IO that talks in events, both ways. */
export function unprovidedSource<Received extends EventObject, Input>(
  name: string,
): CallbackActorLogic<Received, Input> {
  return fromCallback<Received, Input>(() => {
    throw new Error(`actor "${name}" was not provided`);
  });
}
