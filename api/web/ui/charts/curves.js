// The points of one job, and the aligned columns that a chart draws.

const STAGES = ["sft", "dpo", "reward"];

/** Points by stage and split, in the order of steps. One point per (stage, split, step), as the service promises. */
export class Curves {
  constructor() {
    this.clear();
  }

  clear() {
    this.points = new Map();
    this.size = 0;
  }

  add(points) {
    for (const point of points) {
      const key = `${point.stage}/${point.split}`;
      const list = this.points.get(key) ?? [];
      this.points.set(key, list);
      this.#insert(list, point);
    }
  }

  #insert(list, point) {
    let at = list.length;
    while (at > 0 && list[at - 1].step > point.step) at -= 1;
    const isKnown = at > 0 && list[at - 1].step === point.step;
    list.splice(isKnown ? at - 1 : at, isKnown ? 1 : 0, point);
    if (!isKnown) this.size += 1;
  }

  of(stage, split) {
    return this.points.get(`${stage}/${split}`) ?? [];
  }

  last(stage, split) {
    return this.of(stage, split).at(-1) ?? null;
  }

  /** The newest training point, of the furthest stage. */
  get newest() {
    return STAGES.map((stage) => this.last(stage, "train")).findLast((point) => point !== null) ?? null;
  }

  /** [{stage, from, to}] on one axis on which the stages stand one behind the other. */
  bands() {
    const bands = [];
    let from = 0;
    for (const stage of STAGES) {
      const to = from + Math.max(0, ...["train", "validation"].map((split) => this.last(stage, split)?.step ?? 0));
      if (!this.of(stage, "train").length && !this.of(stage, "validation").length) continue;
      bands.push({ stage, from, to });
      from = to + 1; // step 0 of the next stage has a place of its own
    }
    return bands;
  }

  /** Columns for a chart: [x, one column per series]; undefined where a series has no point, null where it was not finite. */
  columns(series) {
    const starts = Object.fromEntries(this.bands().map(({ stage, from }) => [stage, from]));
    const sources = series.map(({ stage, split, name, fromStep = 0 }) =>
      this.of(stage, split)
        .filter((point) => name in point.values && point.step >= fromStep)
        .map((point) => [starts[stage] + point.step, point.values[name]]),
    );
    return align(sources);
  }
}

/** Lists of [x, y] on one x column. */
export function align(sources) {
  const xs = [...new Set(sources.flat().map(([x]) => x))].sort((a, b) => a - b);
  const place = new Map(xs.map((x, index) => [x, index]));
  const columns = sources.map((points) => {
    const column = new Array(xs.length).fill(undefined);
    for (const [x, y] of points) column[place.get(x)] = y;
    return column;
  });
  return [xs, ...columns];
}
