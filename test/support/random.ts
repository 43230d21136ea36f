// Chance that a seed repeats: whatever a test decides by it, it decides the same way again.

export type Random = {
  readonly seed: number;
  /** From 0 to before `limit`. */
  int(limit: number): number;
  chance(share: number): boolean;
  pick<T>(list: readonly T[]): T;
};

/** mulberry32: 32 bits of state are enough to choose from. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    seed,
    int: (limit) => Math.floor(next() * limit),
    chance: (share) => next() < share,
    pick(list) {
      const found = list[Math.floor(next() * list.length)];
      if (found === undefined) throw new Error("nothing to pick from");
      return found;
    },
  };
}

/** Seeds of a run: `name`_SEED names one, `name`_SEEDS says how many, from 1 on; without them the usual ones, or so many. */
export function seeds(name: string, usual: number | readonly number[], env: NodeJS.ProcessEnv = process.env): number[] {
  const [one, count] = [env[`${name}_SEED`], env[`${name}_SEEDS`]];
  if (one !== undefined) return [Number(one)];
  if (count === undefined && typeof usual !== "number") return [...usual];
  return Array.from({ length: Number(count ?? usual) }, (_, index) => index + 1);
}
