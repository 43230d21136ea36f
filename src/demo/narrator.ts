// What the demo says while it works: a line per fact with the seconds since its start, on stderr.

export type Narrator = {
  /** A step that begins. */
  step(text: string): void;
  /** Something that happened within the step. */
  note(text: string): void;
  /** Progress of the step: shown at most once a second, and overwritten on a terminal. */
  progress(text: string): void;
  /** A fault that the demo goes on from. */
  warn(text: string): void;
};

export function createNarrator(out: NodeJS.WritableStream & { isTTY?: boolean }): Narrator {
  const started = Date.now();
  let lastProgressMs = 0;
  let isOpen = false;
  const stamp = () => `${((Date.now() - started) / 1000).toFixed(1).padStart(6)} s`;
  const line = (mark: string, text: string) => {
    if (isOpen) out.write("\r\x1b[K");
    isOpen = false;
    lastProgressMs = 0;
    out.write(`${stamp()}  ${mark} ${text}\n`);
  };
  return {
    step: (text) => line("▸", text),
    note: (text) => line(" ", text),
    warn: (text) => line("!", text),
    progress(text) {
      const every = out.isTTY === true ? 100 : 1000;
      if (Date.now() - lastProgressMs < every) return;
      lastProgressMs = Date.now();
      if (out.isTTY === true) {
        out.write(`\r\x1b[K${stamp()}    ${text}`);
        isOpen = true;
      } else out.write(`${stamp()}    ${text}\n`);
    },
  };
}
