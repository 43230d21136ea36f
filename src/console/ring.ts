// The last `capacity` items, in order of arrival.
//   Z9. A ring never holds more than `capacity` items; the oldest goes first.

export class Ring<T> {
  private readonly items: T[] = [];
  private next = 0;
  private readonly capacity: number;
  /** `capacity` is at least 1. */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** Returns the item that had to go, if one had to. */
  push(item: T): T | undefined {
    const gone = this.items[this.next];
    this.items[this.next] = item;
    this.next = (this.next + 1) % this.capacity;
    return gone;
  }

  /** The item that goes next. */
  get oldest(): T | undefined {
    return this.items.length < this.capacity ? this.items[0] : this.items[this.next];
  }

  /** Oldest first. */
  toArray(): T[] {
    return [...this.items.slice(this.next), ...this.items.slice(0, this.next)];
  }
}
