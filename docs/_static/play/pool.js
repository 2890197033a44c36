// The page "A batch being served": plays a recording of a pool.

import { element, transport } from "./transport.js";
import { pathOf, statesOf } from "./recording.js";

// What happened to a block: a sign, which fits into the smallest block, and a word.
const EVENTS = {
  taken: ["+", "taken"], shared: ["=", "shared"], copied: ["\u00ab", "copied"], found: ["*", "found"],
  evicted: ["!", "evicted"], "swapped in": ["\u2193", "swapped in"], "swapped out": ["\u2191", "swapped out"],
  kept: ["c", "kept"], freed: ["\u2212", "freed"],
};
const KINDS = {
  free: "free", used: "held by a sequence, and full as far as it is coloured", shared: "shared by several sequences",
  cached: "held by no sequence, but kept by the prefix cache", findable: "held, and known to the prefix cache",
};
const HAPPENED = {
  taken: "taken from the free blocks", shared: "shared by a fork", copied: "made as a copy of block 5 (copy-on-write)",
  found: "found by the prefix cache", evicted: "evicted from the prefix cache, and taken",
  "swapped in": "filled again from host memory", "swapped out": "saved to host memory, and freed",
  kept: "left by its last sequence, and kept by the prefix cache", freed: "freed",
};
const AFTER = { shared: "shared", found: "shared", "swapped out": "free", kept: "cached", freed: "free" };
const MANY = 100; // Of more blocks than this, only signs are drawn.
const COLOURS = 7;
const MOST_CALLS = 8; // More calls of a step are only counted.

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const words = names => names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : `${names[0]}`;

/** Return a sign as a background image: text that comes and goes would lay out the whole grid anew. */
const picture = sign => `url("data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12">
  <rect width="12" height="12" fill="#fff"/><text x="6" y="10.2" text-anchor="middle" font-family="sans-serif" font-size="12"
  font-weight="700">${sign}</text></svg>`)}")`;

/** Give an element attributes and, by names that begin with "--", style; null removes. What it has already costs nothing. */
function put(box, looks) {
  const had = box.looks ?? {};
  for (const [name, value] of Object.entries(looks)) {
    if (had[name] === value) continue;
    if (name.startsWith("--")) box.style.setProperty(name, value);
    else if (value === null) box.removeAttribute(name);
    else box.setAttribute(name, value);
  }
  box.looks = looks;
}

/** Make a row of buttons one stop of the Tab key, within which the arrows, Home and End move. */
function rove(box) {
  const stops = () => [...box.querySelectorAll("button")];
  box.addEventListener("focusin", event => {
    box.querySelector("[tabindex='0']")?.setAttribute("tabindex", -1);
    event.target.setAttribute("tabindex", 0);
  });
  box.addEventListener("keydown", event => {
    const all = stops(), here = all.indexOf(event.target);
    if (here < 0 || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const top = all[0].offsetTop, second = all.findIndex(stop => stop.offsetTop > top);
    const columns = second < 0 ? all.length : second;
    const to = {
      ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns,
      Home: 0, End: all.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    all[to]?.focus();
  });
}

/** Return the offset that a click in the picture of a block means: that of the token there or, by keyboard, the last. */
function offsetAt(event, filled, blockSize) {
  const box = event.currentTarget.getBoundingClientRect();
  const there = event.detail ? Math.floor((event.clientX - box.left) / box.width * blockSize) : blockSize;
  return Math.max(0, Math.min(there, filled - 1));
}

class Player {
  constructor(root) {
    this.root = root;
    this.batches = JSON.parse(root.dataset.batches);
    root.replaceChildren();
    this.controls = transport(root, { show: step => this.show(step), say: step => this.states[step].say });
    this.choice = element("select", { class: "pn-choice", onchange: () => this.open(this.choice.value) },
      ...Object.entries(this.batches).map(([name, title]) => element("option", { value: name }, title)));
    this.about = element("p", { class: "pn-about" });
    root.prepend(element("label", {}, "Recording ", this.choice), this.about);

    this.facts = new Text();
    this.grid = element("div", { class: "pn-grid", role: "group", "aria-label": "Blocks of the pool" });
    this.token = element("section", { class: "pn-token", "aria-label": "The chosen token" });
    this.legend = element("div", { class: "pn-legend" });
    this.running = element("div"), this.swapped = element("div"), this.waiting = element("ul", { class: "pn-queue" });
    this.done = element("p", { class: "pn-done" });
    this.calls = new Text();
    this.made = element("p", { class: "pn-made" });
    rove(this.grid);
    const part = (title, ...inside) => element("section", {}, element("h3", {}, title), ...inside);
    root.append(
      element("div", { class: "pn-body" },
        element("div", {}, part("The pool", element("p", { class: "pn-facts" }, this.facts), this.grid), this.token),
        element("div", {}, part("Running, with their block tables", this.running), part("Swapped out", this.swapped),
          part("Waiting", this.waiting), this.done)),
      this.legend, element("p", { class: "pn-calls" }, this.calls), this.made);
    const named = location.hash.slice(1);
    this.choice.value = named in this.batches ? named : Object.keys(this.batches)[0];
    this.open(this.choice.value, false);
  }

  /** Fetch a recording, and show its first step. */
  async open(name, byHand = true) {
    const answer = await fetch(`${this.root.dataset.base}${name}.json`);
    const recording = await answer.json();
    if (name !== this.choice.value) return; // another one was chosen meanwhile
    if (byHand) history.replaceState(null, "", `#${name}`);
    this.recording = recording;
    this.states = statesOf(recording);
    this.chosen = null;
    this.token.style.minHeight = "";
    this.colours = new Map();
    for (const { sequences } of this.states)
      for (const name of sequences.keys()) if (!this.colours.has(name)) this.colours.set(name, this.colours.size % COLOURS);
    this.about.textContent = recording.about;
    const { version, script, cache } = recording.made_by;
    this.made.textContent = `Recorded by ${script} with ${version}: ${cache}.`;
    this.rows = new Map();
    this.running.replaceChildren();
    this.swapped.replaceChildren();
    this.drawn = [];
    this.many = recording.num_blocks > MANY;
    this.grid.classList.toggle("pn-many", this.many);
    this.grid.style.setProperty("--slots", recording.block_size);
    this.blocks = this.states[0].blocks.map((_, number) => this.newBlock("button", number, {
      type: "button", tabindex: number ? -1 : 0, onclick: event => this.chooseBlock(event, number),
    }));
    this.grid.replaceChildren(...this.blocks);
    this.drawLegend();
    this.root.dataset.batch = name;
    this.controls.load(this.states.length);
  }

  newBlock(tag, number, attributes = {}) {
    const made = element(tag, { class: "pn-block", ...attributes });
    if (!this.many) made.append(element("span", { class: "pn-no" }, number), element("b"), element("i"), element("em"));
    return made;
  }

  chooseBlock(event, number) {
    const { holders, filled } = this.state.blocks[number];
    const offset = offsetAt(event, filled, this.recording.block_size);
    this.choose(holders.length ? { name: holders[0][0], logical: holders[0][1], offset } : { block: number, offset }, event);
  }

  get state() { return this.states[this.controls.step]; }

  // What is seen at a step. Only what differs from what is drawn is drawn anew.

  show(step) {
    const state = this.states[step];
    state.blocks.forEach((block, number) => {
      if (this.drawn[number] !== block) this.drawBlock(this.blocks[number], number, block);
    });
    this.drawn = state.blocks;
    this.drawRows(state);
    const count = kind => state.blocks.filter(block => block.kind === kind).length;
    const facts = [
      `${count("used") + count("shared")} of ${plural(state.blocks.length, "block")} of ${this.recording.block_size} slots in use`,
      count("shared") ? `${count("shared")} of them shared` : "", count("cached") ? `${count("cached")} cached` : "",
      `${count("free")} free`,
    ];
    this.facts.data = facts.filter(Boolean).join(", ");
    this.calls.data = !state.calls.length ? "" : `Calls to the pool in this step: ${
      state.calls.slice(0, MOST_CALLS).join(", ")}${state.calls.length > MOST_CALLS ? ` and ${state.calls.length - MOST_CALLS} more` : ""}`;
    this.drawToken();
  }

  drawBlock(box, number, { kind, holders, filled, cached, event, source }) {
    const names = holders.map(([name]) => name), [sign, word] = EVENTS[event] ?? ["", ""];
    const happened = event === "copied" ? `copied from ${source}` : word;
    const held = { free: "free", cached: "free, but kept by the prefix cache" }[kind]
      ?? `${words(names)}, ${filled} of ${this.recording.block_size} tokens${cached ? ", in the prefix cache" : ""}`;
    put(box, {
      "data-kind": kind, "data-event": event ?? "", "data-cached": cached && kind !== "cached" ? "" : null,
      "--fill": this.level(filled),
      "--colour": kind === "used" ? `var(--c${this.colours.get(names[0])})` : "var(--strong)",
      "--sign": this.many && sign ? picture(sign) : "none",
      "aria-label": `Block ${number}: ${held}${happened ? `; ${happened} in this step` : ""}`,
    });
    if (this.many) return;
    box.children[1].textContent = names.length > 2 || names.join("+").length > 4 ? `\u00d7${names.length}` : names.join("+");
    box.children[3].textContent = event === "copied" ? `${sign} ${source}`
      : event ? `${sign} ${word.replace("swapped ", "")}` : kind === "cached" ? "cached" : "";
  }

  /** Return how full a block is drawn, 0 to 1; one of many, in quarters. */
  level(filled) {
    const share = filled / this.recording.block_size;
    return this.many ? Math.ceil(4 * share) / 4 : share;
  }

  drawRows(state) {
    // Rows are hidden, not removed: styles of the page make the browser style all rows after a removed one anew.
    for (const [name, row] of this.rows) put(row.box, { hidden: state.sequences.has(name) ? null : "" });
    const next = new Map([[this.running, this.running.firstChild], [this.swapped, this.swapped.firstChild]]);
    const shown = new Map([[this.running, 0], [this.swapped, 0]]);
    for (const [name, sequence] of state.sequences) {
      const row = this.rows.get(name) ?? this.newRow(name), list = sequence.table ? this.running : this.swapped;
      let there = next.get(list);
      while (there?.hidden && there !== row.box) there = there.nextSibling;
      if (there !== row.box) list.insertBefore(row.box, there);
      next.set(list, row.box.nextSibling);
      shown.set(list, shown.get(list) + 1);
      this.drawRow(row, name, sequence, state);
    }
    put(this.swapped.parentElement, { hidden: shown.get(this.swapped) ? null : "" });
    put(this.running, { "data-empty": shown.get(this.running) ? "" : "none" });
    if (this.queue !== state.waiting) {
      this.queue = state.waiting;
      this.waiting.replaceChildren(...state.waiting.map(([name, tokens, why]) => element("li", {}, element("b", {}, name),
        ` ${plural(tokens, "token")}${why === "preempted" ? ", preempted" : ""}`, ...this.promptOf(name))));
      this.waiting.dataset.empty = state.waiting.length ? "" : "none";
    }
    const done = state.done.length ? `Done: ${words(state.done)}.` : "";
    if (this.done.textContent !== done) this.done.textContent = done;
  }

  promptOf(name) {
    const prompt = this.recording.made_by.requests[name]?.prompt;
    return typeof prompt === "string" ? [element("q", {}, prompt)] : [];
  }

  newRow(name) {
    const count = new Text(), table = element("div", { class: "pn-table", role: "group", "aria-label": `Block table of ${name}` });
    const box = element("div", { class: "pn-row", style: `--colour:var(--c${this.colours.get(name)})` },
      element("p", {}, element("b", { class: "pn-name" }, name), " ", count, ...this.promptOf(name)), table);
    rove(table);
    const row = { box, count, table, entries: [], sequence: null };
    this.rows.set(name, row);
    return row;
  }

  drawRow(row, name, sequence, state) {
    const { table, length } = sequence, size = this.recording.block_size;
    if (row.sequence !== sequence) {
      const held = (table ?? []).filter(block => block >= 0).length;
      row.count.data = `${plural(length, "token")}, ${table ? plural(held, "block") : "in host memory"}`;
    }
    row.sequence = sequence;
    while (row.entries.length > (table?.length ?? 0)) row.entries.pop().box.remove();
    for (let logical = 0; logical < (table?.length ?? 0); logical++) {
      const number = table[logical], block = state.blocks[number] ?? null, filled = Math.min(size, length - logical * size);
      const entry = row.entries[logical] ?? this.newEntry(row, name, logical);
      if (entry.number !== number || entry.filled !== filled || entry.block !== block) {
        Object.assign(entry, { number, filled, block });
        this.drawEntry(entry, logical);
      }
    }
  }

  newEntry(row, name, logical) {
    const size = this.recording.block_size;
    const box = element("button", { type: "button", class: "pn-entry", tabindex: logical ? -1 : 0, onclick: event => {
      const filled = Math.min(size, row.sequence.length - logical * size);
      this.choose({ name, logical, offset: offsetAt(event, filled, size) }, event);
    } }, new Text());
    const entry = { box, number: null, filled: null, block: null };
    row.entries.push(entry);
    row.table.append(box);
    return entry;
  }

  drawEntry({ box, number, filled, block }, logical) {
    const released = number < 0, kind = released ? "released" : block.kind;
    box.firstChild.data = released ? "\u2013" : number;
    put(box, {
      "data-kind": kind, "data-event": block?.event ?? "", "--fill": released ? 0 : this.level(filled),
      "aria-label": released ? `Entry ${logical}: released`
        : `Entry ${logical}: block ${number}, ${plural(filled, "token")}${kind === "shared" ? ", shared" : ""}`,
    });
  }

  /** Draw what blocks look like in this recording. */
  drawLegend() {
    const kinds = new Set(["free"]), events = new Set();
    for (const { blocks } of this.states)
      for (const { kind, event, cached } of new Set(blocks)) {
        kinds.add(kind);
        if (cached && kind !== "cached") kinds.add("findable");
        if (event) events.add(event);
      }
    const names = [...this.colours.keys()], size = this.recording.block_size;
    const item = (text, kind, event) => {
      const sample = this.newBlock("span", ""), held = { free: 0, cached: 0, shared: 2 }[kind] ?? 1;
      this.drawBlock(sample, "", {
        kind: kind === "findable" ? "used" : kind, holders: names.slice(0, held).map(name => [name, 0]),
        filled: kind === "free" ? 0 : held ? Math.ceil(0.7 * size) : size, cached: kind === "findable", event, source: 5,
      });
      sample.setAttribute("aria-hidden", true);
      sample.style.setProperty("--slots", size);
      return element("li", {}, sample, text);
    };
    const list = (title, meanings, seen, kindOf) => element("section", {}, element("h3", {}, title), element("ul", {},
      ...Object.entries(meanings).filter(([what]) => seen.has(what)).map(([what, text]) => item(text, ...kindOf(what)))));
    this.legend.classList.toggle("pn-many", this.many);
    this.legend.replaceChildren(list("A block is", KINDS, kinds, kind => [kind, null]),
      list("In this step it was", HAPPENED, events, event => [AFTER[event] ?? "used", event]));
  }

  // The chosen token.

  /** Choose a token by its place in a sequence, or a slot of a block that no sequence holds. */
  choose(chosen, event) {
    this.chosen = chosen;
    this.token.style.minHeight = "";
    this.drawToken();
    // While it stays chosen, what is below does not move.
    this.token.style.minHeight = `${this.token.offsetHeight}px`;
    const { top, bottom } = this.token.getBoundingClientRect();
    // A finger or a mouse has no focus to lose: on a small screen, show what it asked for.
    if (event.detail && (top > innerHeight - 60 || bottom < 60)) this.token.scrollIntoView({ block: "nearest" });
  }

  drawToken() {
    const { recording, state, chosen } = this, size = recording.block_size;
    for (const box of this.marked ?? []) box.removeAttribute("data-at");
    this.marked = [];
    const sequence = chosen?.name && state.sequences.get(chosen.name);
    const found = sequence?.table?.[chosen.logical] ?? chosen?.block;
    const there = found >= 0 && (!chosen.name || chosen.logical * size < sequence.length);
    if (there) {
      this.mark(this.blocks[found], chosen.offset);
      const entry = this.rows.get(chosen.name)?.entries[chosen.logical];
      if (entry) this.mark(entry.box, chosen.offset);
    }
    const key = JSON.stringify([chosen, found, sequence?.length, there && state.blocks[found].holders, there && state.blocks[found].kind]);
    if (key === this.tokenKey && this.token.childElementCount) return;
    this.tokenKey = key;
    if (!chosen) {
      this.token.replaceChildren(element("p", {}, "Choose a token: click into a block or into a block table; or go there with Tab, move with the arrow keys and press Enter."));
    } else if (!there) {
      const why = !sequence ? "is not in the pool" : !sequence.table ? "is swapped out" : found < 0 ? "has released this block" : "has no such token yet";
      this.token.replaceChildren(element("h3", {}, `Token ${chosen.logical * size + chosen.offset} of ${chosen.name}`),
        element("p", {}, `At this step ${chosen.name} ${why}.`));
    } else {
      this.drawPath(found, sequence || null);
    }
  }

  mark(box, offset) {
    box.style.setProperty("--at", offset / this.recording.block_size);
    box.toggleAttribute("data-at", true);
    this.marked.push(box);
  }

  drawPath(number, sequence) {
    const { recording, chosen } = this, size = recording.block_size, { name, logical, offset } = chosen;
    const block = this.state.blocks[number], slot = number * size + offset;
    const position = sequence && logical * size + offset, full = sequence ? position < sequence.length : offset < block.filled;
    const facts = [];
    if (sequence && full) {
      const { reader } = pathOf(recording, sequence, position);
      facts.push(
        ["Position", `${position}, of 0 to ${sequence.length - 1}`],
        ["Logical block", `${position} // ${size} = ${logical}`],
        ["Offset", `${position} % ${size} = ${offset}`],
        ["Block", `entry ${logical} of ${name}'s block table: ${number}`],
        ["Slot", `${number} * ${size} + ${offset} = ${slot}`],
        ["Read by", this.readerText(name, reader)]);
      const others = block.holders.map(([other]) => other).filter(other => other !== name);
      if (others.length) facts.push(["Shared", `${words(others)} hold${others.length === 1 ? "s" : ""} the block, too: one copy of the token for all.`]);
    } else {
      facts.push(["Block", `${number}`], ["Offset", `${offset}`], ["Slot", `${number} * ${size} + ${offset} = ${slot}`],
        ["Holds", block.kind === "cached" ? "a token of a prefix. No sequence holds the block, so the pool may evict it." : "no token"]);
    }
    const title = sequence && full ? `Token ${position} of ${name}` : `Slot ${slot}`;
    const slots = element("div", { class: "pn-slots", role: "group", "aria-label": `Slots of block ${number}`, style: `--slots:${size};--colour:${name ? `var(--c${this.colours.get(name)})` : "var(--strong)"}` },
      ...Array.from({ length: size }, (_, at) => {
        const holds = sequence ? logical * size + at < sequence.length : at < block.filled;
        const shown = holds && sequence ? logical * size + at : holds ? "\u2022" : "";
        return element("button", { type: "button", tabindex: at === offset ? 0 : -1, "aria-pressed": at === offset,
          "data-holds": holds, "aria-label": `Slot ${number * size + at}: ${holds ? sequence ? `token ${shown} of ${name}` : "a cached token" : "empty"}`,
          onclick: event => this.chooseSlot(at, event) }, shown);
      }));
    rove(slots);
    this.token.replaceChildren(element("h3", {}, title), element("p", { class: "pn-which" }, `Block ${number}, slots ${number * size} to ${number * size + size - 1}:`), slots,
      element("dl", {}, ...facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, ...[text].flat())])));
  }

  chooseSlot(at, event) {
    this.choose({ ...this.chosen, offset: at }, event);
    this.token.querySelectorAll(".pn-slots button")[at]?.focus();
  }

  readerText(name, reader) {
    const { kernel, threads, num_q_heads: heads } = this.recording.launch;
    if (!reader) return "no thread: it lies outside the window of the newest token.";
    const pass = reader.numPasses > 1 ? ` in pass ${reader.pass} of 0 to ${reader.numPasses - 1}` : "";
    return [element("strong", {}, `warp ${reader.warp}`), `: thread ${reader.thread} reads the key${pass}, when the newest token of ${name} attends (`,
      element("code", {}, kernel), `, ${threads} threads in ${reader.numWarps} warps; a thread block for each of ${heads} query heads). Then all warps read the value, a thread for each dimension.`];
  }
}

for (const root of document.querySelectorAll(".pn-player[data-batches]")) new Player(root);
