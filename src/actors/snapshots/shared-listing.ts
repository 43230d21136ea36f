// One listing for all who ask for it at once: each costs the program's start and the derivation of its keys.

/**
 * Nobody gets a listing that began before it was asked for, because another process may have written since; and nobody waits
 * for one that runs, which a storage that is gone can hold for minutes.
 */
export class SharedListing<Listed> {
  readonly #list: () => Promise<Listed>;
  #asked: Promise<Listed> | undefined;

  constructor(list: () => Promise<Listed>) {
    this.#list = list;
  }

  read(): Promise<Listed> {
    this.#asked ??= Promise.resolve().then(() => {
      this.#asked = undefined;
      return this.#list();
    });
    return this.#asked;
  }
}
