// A recorded thread block: who runs what at a step, what variables and memory hold, and each step in words.
// Steps are numbered as in the recording; docs/recordings.md explains its form.

export const WARP = 32;

const MOST_VALUES = 4; // Of more variables that a step sets, the sentence gives only the names.

export const STATES = {
  runs: "runs this line", idle: "does not run this line", waits: "waits at a barrier", done: "has ended",
};

const ORDERS = {
  together: "all warps together", forward: "one warp after the other",
  reverse: "one warp after the other, the last one first",
};

/** Return item `rank` of packed values: one for all, evenly spaced, or a list. */
export function item(packed, rank) {
  if (Array.isArray(packed)) return packed[rank];
  return packed !== null && typeof packed === "object" ? packed.from + packed.by * rank : packed;
}

/** Return a value as it is shown; a number that is not whole with so many digits. */
export function shown(value, digits = 6) {
  if (value === undefined) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(digits)));
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;
}

/** Return three lengths as "4" or "32×4", without those at the end that are 1. */
export function size(lengths) {
  const last = lengths.reduce((found, length, axis) => (length > 1 ? axis : found), 0);
  return lengths.slice(0, last + 1).join("×");
}

/** Return the largest place of `sorted` whose number is at most `limit`, -1 if there is none. */
function before(sorted, limit, number = entry => entry) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (number(sorted[middle]) <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The lanes of a mask such as "0-3 32": in order, and the place of each among them (-1: not in it). */
class Mask {
  constructor(text, threads) {
    this.lanes = [];
    for (const part of text ? text.split(" ") : []) {
      const [first, last = first] = part.split("-").map(Number);
      for (let lane = first; lane <= last; lane++) this.lanes.push(lane);
    }
    this.rank = new Int16Array(threads).fill(-1);
    this.lanes.forEach((lane, rank) => { this.rank[lane] = rank; });
    this.size = this.lanes.length;
    this.warps = [...new Set(this.lanes.map(lane => lane >> 5))];
  }

  has(lane) {
    return this.rank[lane] >= 0;
  }
}

export class Steps {
  constructor(recording, number) {
    Object.assign(this, recording.tracks[number]);
    this.functions = recording.functions;
    this.threads = this.threads_per_block.reduce((a, b) => a * b);
    this.warps = Math.ceil(this.threads / WARP);
    this.known = new Map();
    this.turns = Array.from({ length: this.warps }, () => []); // by warp, the steps that it takes part in
    this.ends = new Int32Array(this.threads).fill(-1); // by lane, the last step before it has ended
    this.assignments = this.variables.map(() => []); // by variable
    this.stores = this.arrays.map(() => new Map()); // by array and byte, what was stored when
    this.assigned = []; // by step, the variable with numbers that was assigned last; -1: none yet
    this.opened = []; // by barrier, the step at which it opens
    this.steps.forEach((step, at) => {
      const mask = this.mask(step.lanes);
      for (const warp of mask.warps) this.turns[warp].push(at);
      for (const lane of mask.lanes) this.ends[lane] = at;
      for (const [variable, lanes, values] of step.set ?? []) {
        this.assignments[variable].push({ at, mask: this.mask(lanes), values });
      }
      for (const access of step.accesses ?? []) this.#remember(access, at);
      if (step.opens) this.opened[step.opens] = at;
      const numbers = (step.set ?? []).map(([variable]) => variable).filter(variable => this.variables[variable].dtype);
      this.assigned.push(numbers.at(-1) ?? this.assigned.at(-1) ?? -1);
    });
    // A lane that has not returned waits for the others of its warp: it ends with them.
    this.ends.forEach((at, lane) => {
      const { kind, function: called } = this.steps[at] ?? {};
      if (kind !== "return" || called !== this.kernel) this.ends[lane] = this.turns[lane >> 5].at(-1) ?? -1;
    });
  }

  #remember(access, at) {
    if (this.arrays[access.array].space !== "shared" || access.kind === "load") return;
    const known = this.stores[access.array];
    this.mask(access.lanes).lanes.forEach((_, rank) => {
      const byte = item(access.bytes, rank);
      if (!known.has(byte)) known.set(byte, []);
      known.get(byte).push({ at, value: item(access.values, rank) });
    });
  }

  mask(number) {
    if (!this.known.has(number)) this.known.set(number, new Mask(this.masks[number], this.threads));
    return this.known.get(number);
  }

  /** Return a variable's value in each of `count` lanes from `first` on, after a step; undefined before it has one. */
  across(variable, first, count, at) {
    const found = new Array(Math.min(count, this.threads - first)).fill(undefined);
    const assigned = this.assignments[variable];
    let missing = found.length;
    for (let place = before(assigned, at, entry => entry.at); place >= 0 && missing; place--) {
      const { mask, values } = assigned[place];
      for (let i = 0; i < found.length; i++) {
        const rank = mask.rank[first + i];
        if (found[i] === undefined && rank >= 0) {
          found[i] = item(values, rank);
          missing--;
        }
      }
    }
    return found;
  }

  /** Return what a shared array holds at a byte after a step; undefined if nothing was stored there. */
  stored(array, byte, at) {
    const known = this.stores[array].get(byte);
    return known?.[before(known, at, entry => entry.at)]?.value;
  }

  /** Return an element's name, such as "tile[3, 0]". */
  element(array, byte) {
    const { name, shape, strides, start } = this.arrays[array];
    let rest = byte - start;
    strides.forEach((step, axis) => { if (step < 0) rest -= (shape[axis] - 1) * step; });
    const index = shape.map(() => 0);
    const axes = shape.map((_, axis) => axis).sort((a, b) => Math.abs(strides[b]) - Math.abs(strides[a]));
    for (const axis of axes) {
      const step = Math.abs(strides[axis]);
      if (!step || shape[axis] < 2) continue;
      const place = Math.min(Math.floor(rest / step), shape[axis] - 1);
      rest -= place * step;
      index[axis] = strides[axis] < 0 ? shape[axis] - 1 - place : place;
    }
    return `${name}[${index.join(", ")}]`;
  }

  /** Return what a lane does at a step: "runs", "idle", "waits" at a barrier, or "done". */
  state(lane, at) {
    if (this.mask(this.steps[at].lanes).has(lane)) return "runs";
    if (at > this.ends[lane] && this.complete) return "done";
    return this.waits(lane >> 5, at) ? "waits" : "idle";
  }

  get complete() {
    return !this.left_out;
  }

  /** Return the last step of a warp up to a step, -1 if it has none yet. */
  latest(warp, at) {
    return this.turns[warp][before(this.turns[warp], at)] ?? -1;
  }

  /** Return the barrier at which a warp waits after a step, 0 if it does not. */
  waits(warp, at) {
    const { arrives = 0 } = this.steps[this.latest(warp, at)] ?? {};
    return arrives && (this.opened[arrives] ?? Infinity) > at ? arrives : 0;
  }

  /** Return a cost of an access, such as its sectors, for one warp or, without a number, for all. */
  cost(access, name, warp) {
    const { costs } = access;
    if (!costs?.[name]) return 0;
    const warps = Array.isArray(costs.warps) ? costs.warps : [costs.warps];
    return warps.reduce((sum, w, k) => sum + (warp === undefined || w === warp ? item(costs[name], k) : 0), 0);
  }

  /** Return the costs of an access in words, for one warp or for all. */
  price(access, warp) {
    const cost = name => this.cost(access, name, warp);
    const { space } = this.arrays[access.array];
    const parts = [];
    if (space === "global") {
      parts.push(plural(cost("sectors"), "sector"));
      parts.push(`${Math.round(100 * cost("bytes") / (32 * cost("sectors")))}% useful`);
    } else if (space === "shared") {
      parts.push(plural(cost("wavefronts"), "wavefront"));
      const conflicts = cost("wavefronts") - cost("ideal");
      parts.push(conflicts ? plural(conflicts, "bank conflict") : "no bank conflict");
    }
    if (access.kind === "atomic" && cost("turns")) parts.push(plural(cost("turns"), "turn"));
    return parts.join(", ");
  }

  /** Return the place of a step: "Line 14" or, in a function that the kernel calls, "Line 3 of half_of". */
  line({ line, function: called }) {
    return `Line ${line}${called === this.kernel ? "" : ` of ${this.functions[called].name}`}`;
  }

  /** Return what to call members of a mask: lanes are those of one warp. */
  noun(mask) {
    return this.warps > 1 && mask.warps.length > 1 ? "thread" : "lane";
  }

  /** Return who runs a step: "all 64 threads", "16 of 64 threads" or "warp 1, 16 of 32 lanes". */
  who(mask) {
    const noun = this.noun(mask);
    if (mask.size === this.threads) return mask.size === 1 ? `the ${noun}` : `all ${plural(mask.size, noun)}`;
    if (this.warps > 1 && mask.warps.length === 1) {
      const width = Math.min(WARP, this.threads - WARP * mask.warps[0]);
      return `warp ${mask.warps[0]}, ${mask.size === width ? `all ${width}` : `${mask.size} of its ${width}`} lanes`;
    }
    return `${mask.size} of ${plural(this.threads, noun)}`;
  }

  /** Return the variables that a step sets, in words; of many only their names. */
  saySet({ set = [] }) {
    const names = set.map(([variable]) => this.variables[variable].name);
    if (set.length > MOST_VALUES) return [`${names.slice(0, -1).join(", ")} and ${names.at(-1)} are set`];
    return set.map(([variable, lanes, values], number) => {
      const text = this.variables[variable].dtype ? this.summary(values, this.mask(lanes).size) : `is ${values}`;
      return `${names[number]} ${text}`;
    });
  }

  /** Return a step in words. */
  say(at) {
    const step = this.steps[at];
    const mask = this.mask(step.lanes), parts = [];
    const set = this.saySet(step);
    if (step.held !== undefined) parts.push(...set.splice(0)); // parameters, which have their values before the test
    for (const access of step.accesses ?? []) {
      const { name, space } = this.arrays[access.array];
      const verb = { load: "load", store: "store to", atomic: "update" }[access.kind];
      const lanes = this.mask(access.lanes).size;
      const some = lanes === mask.size ? "" : ` in ${plural(lanes, this.noun(mask))}`;
      const price = this.price(access);
      parts.push(`${verb} ${access.text || name}${some} (${price || `${space} memory`})`);
    }
    if (step.shuffle) parts.push("read registers of other lanes");
    else if (step.joins) parts.push({ syncwarp: "meet at syncwarp", vote: "vote" }[step.joins] ?? step.joins);
    if (step.held !== undefined) {
      const held = this.mask(step.held).size;
      const what = step.kind === "while" ? ["the loop goes on", "the loop ends"] : ["the test holds", "the test fails"];
      if (!held || held === mask.size) parts.push(what[held ? 0 : 1]);
      else parts.push(`${what[0]} for ${held} and ${what[1].split(" ").at(-1)} for ${mask.size - held}`);
    }
    parts.push(...set);
    if (step.kind === "return") parts.push(step.function === this.kernel ? "end here" : "return");
    if (step.arrives) {
      const together = mask.warps.length === this.warps;
      if (step.opens) parts.push(`arrive${together ? "" : " last"}, and barrier ${step.opens} opens`);
      else parts.push(`wait at barrier ${step.arrives}`);
    }
    if (!parts.length) {
      parts.push(step.kind === "for" ? "begin the loop" : step.resumed ? "go on after the call" : "run it");
    }
    const failed = at === this.steps.length - 1 && this.error ? ` The launch ended here. ${this.error}` : "";
    return `${this.line(step)}: ${this.who(mask)}: ${parts.join("; ")}.${failed}`;
  }

  /** Return what a lane does at a step, in words. */
  sayLane(lane, at) {
    const step = this.steps[at], did = [];
    const rank = number => this.mask(number).rank[lane];
    for (const access of step.accesses ?? []) {
      const place = rank(access.lanes);
      if (place < 0) continue;
      const verb = { load: "loads", store: "stores", atomic: "updates" }[access.kind];
      const name = this.element(access.array, item(access.bytes, place));
      did.push(`${verb} ${name} = ${shown(item(access.values, place))}`);
    }
    if (step.shuffle && rank(step.shuffle.lanes) >= 0) {
      did.push(`reads a register of lane ${item(step.shuffle.from, rank(step.shuffle.lanes)) % WARP}`);
    }
    const runs = rank(step.lanes) >= 0;
    if (step.held !== undefined && runs) did.push(rank(step.held) >= 0 ? "the test holds" : "the test fails");
    const [x, y, z] = this.threads_per_block;
    const place = [lane % x, Math.floor(lane / x) % y, Math.floor(lane / x / y)].slice(0, z > 1 ? 3 : 2);
    const thread = y * z > 1 ? `, thread (${place.join(", ")})` : "";
    const does = STATES[this.state(lane, at)];
    return `Lane ${lane % WARP} of warp ${lane >> 5}${thread} ${does}${did.length ? `: ${did.join("; ")}` : ""}.`;
  }

  /** Return what is played: the kernel and how it was launched. */
  title() {
    const blocks = size(this.blocks_per_grid), threads = size(this.threads_per_block);
    const grid = `${blocks} thread block${blocks === "1" ? "" : "s"} of ${threads} thread${threads === "1" ? "" : "s"}`;
    return `${this.functions[this.kernel].name}: ${grid}, ${ORDERS[this.order]}`;
  }

  /** Return values in words: "= 16", or "from 0 to 31". */
  summary(values, count) {
    if (values === null || typeof values !== "object") return `= ${shown(values)}`;
    const list = Array.from({ length: count }, (_, rank) => item(values, rank));
    return between(list);
  }
}

/** Return a list of different values in words: "0 to 31", with what is no number said. */
export function between(list, digits) {
  const numbers = list.filter(value => typeof value === "number");
  if (!numbers.length) return `= ${[...new Set(list.map(value => shown(value)))].slice(0, 3).join(", ")}`;
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const others = [...new Set(list.filter(value => typeof value !== "number" && value !== undefined).map(String))];
  const span = low === high ? `= ${shown(low, digits)}` : `from ${shown(low, digits)} to ${shown(high, digits)}`;
  return others.length ? `${span}, or ${others.slice(0, 2).join(", ")}` : span;
}
