// What /readyz says about a server: each part by name, and whether it serves.

type PartState = { name: string; ready: boolean; detail: string };
export type Readiness = { ready: boolean; parts: PartState[] };
type Look = () => Omit<PartState, "name">;

/** Parts register themselves; each question looks anew. */
export class ReadinessBoard {
  private readonly parts: { name: string; look: Look; required: boolean }[] = [];
  private open = false;

  /** `required: false`: told, but the server is ready without it (tier 2 may be away while tier 1 serves). */
  add(name: string, look: Look, { required = true }: { required?: boolean } = {}): void {
    this.parts.push({ name, look, required });
  }

  /** True once every part was opened; false again while draining. */
  setOpen(open: boolean): void {
    this.open = open;
  }

  read(): Readiness {
    const looked = this.parts.map(({ name, look, required }) => ({ required, part: { name, ...look() } }));
    const ready = this.open && looked.every(({ required, part }) => part.ready || !required);
    return { ready, parts: looked.map(({ part }) => part) };
  }
}
