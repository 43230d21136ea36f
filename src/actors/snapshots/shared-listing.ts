// One listing for all who ask for it at once: each costs the program's start and the derivation of its keys.
import type { Outcome } from "../../domain/outcome.ts";
import type { CatalogueEntry } from "../../domain/snapshot-catalogue.ts";

type Listing = Promise<Outcome<CatalogueEntry[]>>;

/**
 * Nobody gets a listing that began before it was asked for, because another process may have written since; and nobody waits
 * for one that runs, which a storage that is gone can hold for minutes.
 */
export class SharedListing {
  readonly #list: () => Listing;
  #asked: Listing | undefined;

  constructor(list: () => Listing) {
    this.#list = list;
  }

  read(): Listing {
    this.#asked ??= Promise.resolve().then(() => {
      this.#asked = undefined;
      return this.#list();
    });
    return this.#asked;
  }
}
