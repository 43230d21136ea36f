// The instruments of the meter `klio`, made from names.ts when they are first used.
import {
  type Counter,
  type Histogram,
  type Meter,
  type MetricOptions,
  type ObservableResult,
  ValueType,
} from "@opentelemetry/api";
import { isMetricName, type MetricName, type MetricRow, metrics, STAGE_BOUNDS_SECONDS } from "./names.ts";

export type Labels = Record<string, string | number | boolean>;
export type Reading = { value: number; labels?: Labels };
type Series = { labels: Labels; value: number };
type Gauge = {
  series: Map<string, Series>;
  readers: Set<() => Iterable<Reading>>;
  /** Told instead of asking the readers. */
  held: Reading[] | undefined;
  clamp: boolean;
  int: boolean;
};

/** The same for the same labels, in whatever order they come. */
function keyOf(labels: Labels): string {
  const names = Object.keys(labels);
  if (names.length > 1) names.sort();
  let key = "";
  for (const name of names) key += `${name}\0${labels[name]}\0`;
  return key;
}

/** Never throws: what a metric cannot take (an unknown name, NaN, a negative count) goes to `onFault` and is dropped. */
export class Instruments {
  readonly #meter: Meter;
  readonly #onFault: (error: unknown) => void;
  readonly #gauges = new Map<string, Gauge>();
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, Histogram>();

  constructor(meter: Meter, onFault: (error: unknown) => void) {
    this.#meter = meter;
    this.#onFault = onFault;
  }

  /** Moves a counter up. A value that is no count would spoil the series for good. */
  add(name: string, value: number, labels: Labels = {}): void {
    this.#guard(name, value, "counter", () => {
      if (value < 0) throw new Error(`a counter cannot fall by ${-value}`);
      this.#counterOf(name).add(value, labels);
    });
  }

  /** States a gauge's value; it holds until the next one. */
  set(name: string, value: number, labels: Labels = {}): void {
    this.#guard(name, value, "gauge", () => {
      this.#seriesOf(name, labels).value = value;
    });
  }

  /** Moves a gauge that counts what is there. */
  adjust(name: string, by: number, labels: Labels = {}): void {
    this.#guard(name, by, "gauge", () => {
      this.#seriesOf(name, labels).value += by;
    });
  }

  /** What `adjust` does, for one series that is moved often; the series is there from now on. */
  level(name: MetricName, labels: Labels): (by: number) => void {
    let series: Series | undefined;
    this.#guard(name, 0, "gauge", () => {
      series = this.#seriesOf(name, labels);
    });
    return (by) => {
      if (series !== undefined) series.value += by;
    };
  }

  /** Like `adjust`, but what is shown is 1 while the count is above 0. */
  flag(name: string, by: number, labels: Labels = {}): void {
    this.#guard(name, by, "gauge", () => {
      this.#gaugeOf(name).clamp = true;
      this.#seriesOf(name, labels).value += by;
    });
  }

  record(name: string, value: number, labels: Labels = {}): void {
    this.#guard(name, value, "histogram", () => {
      let histogram = this.#histograms.get(name);
      if (histogram === undefined) {
        histogram = this.#meter.createHistogram(name, optionsOf(name));
        this.#histograms.set(name, histogram);
      }
      histogram.record(value, labels);
    });
  }

  /** Asks `read` at each collection, so that a series whose subject is gone ends. The returned function takes it back. */
  observe(name: MetricName, read: () => Iterable<Reading>): () => void {
    let gauge: Gauge | undefined;
    this.#guard(name, 0, "gauge", () => {
      gauge = this.#gaugeOf(name);
      gauge.readers.add(read);
    });
    return () => gauge?.readers.delete(read);
  }

  /** From now on the observers are not asked any more: what they tell at this moment stays, also when they are taken back. */
  hold(): void {
    for (const gauge of this.#gauges.values()) gauge.held ??= [...this.#readingsOf(gauge)];
  }

  /** States a value from outside the process's own life: the last known one of a gauge, or the 0 of a counter. */
  hydrate(name: MetricName, labels: Labels, value: number): void {
    if (metrics[name].kind === "counter") this.add(name, value, labels);
    else this.set(name, value, labels);
  }

  #counterOf(name: string): Counter {
    let counter = this.#counters.get(name);
    if (counter === undefined) {
      counter = this.#meter.createCounter(name, optionsOf(name));
      this.#counters.set(name, counter);
    }
    return counter;
  }

  #gaugeOf(name: string): Gauge {
    const known = this.#gauges.get(name);
    if (known !== undefined) return known;
    const gauge: Gauge = {
      series: new Map(),
      readers: new Set(),
      held: undefined,
      clamp: false,
      int: isMetricName(name) && metrics[name].int,
    };
    this.#gauges.set(name, gauge);
    this.#meter.createObservableGauge(name, optionsOf(name)).addCallback((result) => this.#observeAll(gauge, result));
    return gauge;
  }

  #observeAll(gauge: Gauge, result: ObservableResult): void {
    const observe = (value: number, labels?: Labels) => result.observe(gauge.int ? Math.trunc(value) : value, labels);
    for (const { labels, value } of gauge.series.values()) observe(gauge.clamp ? Math.min(1, value) : value, labels);
    for (const { value, labels } of gauge.held ?? this.#readingsOf(gauge)) observe(value, labels);
  }

  *#readingsOf({ readers }: Gauge): Iterable<Reading> {
    for (const read of readers) {
      try {
        for (const reading of read()) if (Number.isFinite(reading.value)) yield reading;
      } catch (error) {
        this.#onFault(error);
      }
    }
  }

  #seriesOf(name: string, labels: Labels): Series {
    const { series } = this.#gaugeOf(name);
    const key = keyOf(labels);
    let known = series.get(key);
    if (known === undefined) {
      known = { labels, value: 0 };
      series.set(key, known);
    }
    return known;
  }

  #guard(name: string, value: number, kind: MetricRow["kind"], act: () => void): void {
    try {
      if (!isMetricName(name) || metrics[name].kind !== kind) throw new Error(`${name} is no ${kind} of Klio`);
      if (!Number.isFinite(value)) throw new Error(`${name} cannot be ${value}`);
      act();
    } catch (error) {
      this.#onFault(error);
    }
  }
}

function optionsOf(name: string): MetricOptions {
  if (!isMetricName(name)) return {};
  const { unit, int, description, kind } = metrics[name];
  return {
    unit,
    description,
    valueType: int ? ValueType.INT : ValueType.DOUBLE,
    ...(kind === "histogram" && { advice: { explicitBucketBoundaries: STAGE_BOUNDS_SECONDS } }),
  };
}
