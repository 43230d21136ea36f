// Carries the blocks of one segment over one call to the server. Actor logic of segmentShipment; the bytes go from the pipe
// to the call without touching the machine.
import { fromCallback } from "xstate";
import { failure } from "../../domain/outcome.ts";
import type { ShipmentEnd, ShipmentEvent, ShipmentInput } from "../../machines/segment-shipment.machine.ts";
import type { UploadBlock, UploadOutcome, WalUpload } from "./wal-upload.ts";

/** One segment as the pipe of the stream gives it. */
type SegmentSource = {
  /** Gives all blocks in their order, then the end; each block's `release` is called when its buffer is free. */
  connect(sink: { block: (block: UploadBlock) => void; ended: () => void }): void;
  sent(bytes: number): void;
  durable(bytes: number, complete: boolean): void;
  congested(isCongested: boolean): void;
  close(): void;
};

export type ShipSegmentOptions = {
  upload: (options: {
    walName: string;
    segmentBytes: number;
    sendToTier2: boolean;
    method: "stream" | "put";
    fromOffset: number;
    traceparent?: string;
    onAck: (ack: { durableBytes: number; complete: boolean }) => void;
  }) => WalUpload;
  segment: (name: string) => SegmentSource;
  /** Of the segment's span. */
  traceparent: () => string | undefined;
};

/** Stopping the actor ends the call; what is durable stays. Not to be started twice for one segment of a pipe. */
export function shipSegment(options: ShipSegmentOptions) {
  return fromCallback<{ type: "shutdown.requested" }, ShipmentInput>(({ input, sendBack }) => {
    const send = (event: ShipmentEvent) => sendBack(event);
    const segment = options.segment(input.name);
    const traceparent = options.traceparent();
    const upload = options.upload({
      walName: input.name,
      segmentBytes: input.segmentBytes,
      sendToTier2: input.sendToTier2,
      method: input.method,
      fromOffset: input.fromOffset,
      ...(traceparent !== undefined && { traceparent }),
      onAck: ({ durableBytes, complete }) => segment.durable(durableBytes, complete),
    });
    let offset = input.fromOffset;
    let isFinished = false;
    let isCongested = false;
    segment.connect({
      block(block) {
        if (offset === input.fromOffset) send({ type: "shipment.begun" });
        const bytes = block.end - block.start;
        offset += bytes;
        const isWelcome = upload.send(block, () => segment.sent(bytes));
        if (isWelcome || isCongested) return;
        isCongested = true;
        segment.congested(true);
        void upload.drained().then(() => {
          isCongested = false;
          segment.congested(false);
        });
      },
      ended() {
        isFinished = true;
        upload.finish();
        send({ type: "shipment.finished" });
      },
    });
    void upload.ended.then((outcome) => {
      const end = endOf(outcome, { sentBytes: offset, segmentBytes: input.segmentBytes, isFinished });
      segment.close();
      send({ type: "shipment.ended", end });
    });
    return () => {
      upload.cancel();
      segment.close();
    };
  });
}

/** What the server's last word makes of the segment: only what it confirmed in full has arrived. */
function endOf(
  outcome: UploadOutcome,
  { sentBytes, segmentBytes, isFinished }: { sentBytes: number; segmentBytes: number; isFinished: boolean },
): ShipmentEnd {
  if (outcome.kind !== "ok") return outcome;
  const { durableBytes, complete } = outcome.value;
  if (complete && sentBytes === segmentBytes) return { kind: "shipped" };
  if (isFinished && durableBytes === sentBytes && sentBytes < segmentBytes) return { kind: "parted" };
  return failure("KLIO-SERVER-DOWN", `the server ended the call at ${durableBytes} of ${sentBytes} bytes`);
}
