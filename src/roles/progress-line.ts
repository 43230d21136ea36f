// Progress of a long command on stderr: a line that is drawn over on a terminal, one now and then elsewhere.

/** `totalBytes` is 0 while unknown. */
export type Progress = { phase: string; bytes: number; totalBytes: number };

const BAR_EVERY_MS = 200;
const LINE_EVERY_MS = 5_000;

export const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

export function createProgress(stderr: NodeJS.WritableStream & { isTTY?: boolean }) {
  const everyMs = stderr.isTTY === true ? BAR_EVERY_MS : LINE_EVERY_MS;
  let shownAt = performance.now();
  let shownPhase = "";
  let isDrawn = false;
  return {
    /** A new phase is shown at once. */
    show({ phase, bytes, totalBytes }: Progress): void {
      if (phase === shownPhase && performance.now() - shownAt < everyMs) return;
      shownAt = performance.now();
      shownPhase = phase;
      const share = totalBytes > 0 ? ` (${Math.min(100, Math.floor((bytes * 100) / totalBytes))} %)` : "";
      const amount = totalBytes > 0 ? `: ${megabytes(bytes)} of ${megabytes(totalBytes)}${share}` : "";
      const text = `  ${phase}${amount}`;
      isDrawn = stderr.isTTY === true;
      stderr.write(isDrawn ? `\r${text}\u001b[K` : `${text}\n`);
    },
    end(): void {
      if (isDrawn) stderr.write("\n");
    },
  };
}
