// V8's collector, told what this program is like: a heap of some 30 MB that hardly changes, and megabytes of buffers that
// live for a moment. Left alone it lets the space for new objects grow until that is larger than what is left below the
// limit of the old ones, and from then on marks the whole heap over and over (measured in a server: 39 times per GiB of WAL
// instead of 4, for up to two fifths of its CPU time).
import { setFlagsFromString } from "node:v8";

/** To be called before much was allocated. Affects the whole process. */
export function tuneCollector(): void {
  setFlagsFromString("--semi-space-growth-factor=1");
  setFlagsFromString("--heap-growing-percent=50");
}
