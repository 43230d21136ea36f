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

/** Seeds of a run: `name`_SEED names one, `name`_SEEDS says how many; without them `count`, from 1 on. */
export function seeds(name: string, count: number, env: NodeJS.ProcessEnv = process.env): number[] {
  const one = env[`${name}_SEED`];
  if (one !== undefined) return [Number(one)];
  return Array.from({ length: Number(env[`${name}_SEEDS`] ?? count) }, (_, index) => index + 1);
}
