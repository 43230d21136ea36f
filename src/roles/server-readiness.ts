// What /readyz says about a server: each part by name, and whether it serves.

export type PartState = { name: string; ready: boolean; detail: string };
export type Readiness = { ready: boolean; parts: PartState[] };

/** Parts register themselves; the question is asked anew at each look. */
export class ReadinessBoard {
  private readonly parts = new Map<string, () => Omit<PartState, "name">>();
  private open = false;

  /** A part that is not ready makes the server not ready. */
  add(name: string, look: () => Omit<PartState, "name">): void {
    this.parts.set(name, look);
  }

  /** True once every part was opened; false again while draining. */
  setOpen(open: boolean): void {
    this.open = open;
  }

  read(): Readiness {
    const parts = [...this.parts].map(([name, look]) => ({ name, ...look() }));
    return { ready: this.open && parts.every((part) => part.ready), parts };
  }
}
