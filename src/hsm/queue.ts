/** The order of transfers: by class, first come first served within one, bounded by number and by bytes in flight. */

/** In the order of service: somebody waits for the first, nobody for the last. */
export const requestClasses = ['implicit', 'restore', 'archive', 'remove'] as const;
export type RequestClass = (typeof requestClasses)[number];

export interface QueueLimits {
  /** Explicit requests that run at a time (hsm.max_requests). What runs goes on when it sinks. */
  explicit: number;
  /** Implicit restores that run at a time, beside the explicit ones. */
  readonly implicit: number;
  /** Bytes of running requests, counted apart for implicit and explicit; one request always runs. */
  readonly bytes: number;
}

export interface Queued {
  readonly class: RequestClass;
  readonly bytes: number;
}

interface Lane {
  running: number;
  bytes: number;
}

/** First in, first out, with removal from the middle; no scan however long it is. */
class Fifo<T extends object> {
  #items: (T | undefined)[] = [];
  #head = 0;
  readonly #slots = new Map<T, number>();
  #offset = 0;

  get size(): number {
    return this.#slots.size;
  }

  push(item: T): void {
    this.#slots.set(item, this.#offset + this.#items.length);
    this.#items.push(item);
  }

  peek(): T | undefined {
    while (this.#head < this.#items.length && this.#items[this.#head] === undefined) this.#head++;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#offset += this.#head;
      this.#head = 0;
    }
    return this.#items[this.#head];
  }

  remove(item: T): boolean {
    const slot = this.#slots.get(item);
    if (slot === undefined) return false;
    this.#slots.delete(item);
    this.#items[slot - this.#offset] = undefined;
    return true;
  }
}

export class RequestQueue<T extends Queued> {
  readonly limits: QueueLimits;
  readonly #waiting = new Map<RequestClass, Fifo<T>>(requestClasses.map((name) => [name, new Fifo<T>()]));
  readonly #lanes: Readonly<Record<'implicit' | 'explicit', Lane>> = {
    implicit: { running: 0, bytes: 0 },
    explicit: { running: 0, bytes: 0 },
  };

  constructor(limits: QueueLimits) {
    this.limits = limits;
  }

  push(item: T): void {
    this.#fifo(item.class).push(item);
  }

  /** Takes back what has not started; false when it has, or never was here. */
  remove(item: T): boolean {
    return this.#fifo(item.class).remove(item);
  }

  /** The next request that may start now; it counts as running until `finished`. */
  next(): T | undefined {
    for (const name of requestClasses) {
      const item = this.#fifo(name).peek();
      // A class whose first request has to wait for bytes lets the later classes wait, too: else they starve it.
      if (item === undefined) continue;
      const lane = this.#lane(item);
      const limit = name === 'implicit' ? this.limits.implicit : this.limits.explicit;
      const full = lane.running >= limit || (lane.running > 0 && lane.bytes + item.bytes > this.limits.bytes);
      if (full && name === 'implicit') continue;
      if (full) return undefined;
      this.#fifo(name).remove(item);
      lane.running++;
      lane.bytes += item.bytes;
      return item;
    }
    return undefined;
  }

  finished(item: T): void {
    const lane = this.#lane(item);
    lane.running--;
    lane.bytes -= item.bytes;
  }

  waiting(name: RequestClass): number {
    return this.#fifo(name).size;
  }

  get running(): { readonly implicit: number; readonly explicit: number; readonly bytes: number } {
    const { implicit, explicit } = this.#lanes;
    return { implicit: implicit.running, explicit: explicit.running, bytes: implicit.bytes + explicit.bytes };
  }

  #fifo(name: RequestClass): Fifo<T> {
    const fifo = this.#waiting.get(name);
    if (fifo === undefined) throw new RangeError(`no such class: ${name}`);
    return fifo;
  }

  #lane(item: T): Lane {
    return item.class === 'implicit' ? this.#lanes.implicit : this.#lanes.explicit;
  }
}
