// The page "A batch being served": plays a recording of a pool.

import { element, transport } from "./transport.js";
import { offsetAt, plural, put, rove, words } from "./parts.js";
import { statesOf } from "./recording.js";
import { tokenNodes } from "./token.js";

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
const MOST_PROMPT = 90; // characters that are shown
const MOST_CALLS = 8; // More calls of a step are only counted.

/** Return a sign as a background image: text that comes and goes would lay out the whole grid anew. */
const picture = sign => `url("data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg"
  viewBox="0 0 12 12"><rect width="12" height="12" fill="#fff"/><text x="6" y="10.2" text-anchor="middle"
  font-family="sans-serif" font-size="12" font-weight="700">${sign}</text></svg>`)}")`;

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
    this.running = element("div");
    this.swapped = element("div");
    this.waiting = element("ul", { class: "pn-queue" });
    this.done = element("p", { class: "pn-done" });
    this.calls = new Text();
    this.made = element("p", { class: "pn-made" });
    rove(this.grid);
    const part = (title, ...inside) => element("section", {}, element("h3", {}, title), ...inside);
    root.append(
      element("div", { class: "pn-body" },
        element("div", {}, part("The pool", element("p", { class: "pn-facts" }, this.facts), this.grid), this.token),
        element("div", {}, part("Running, with their block tables", this.running),
          this.swappedPart = part("Swapped out", this.swapped),
          part("Waiting", this.waiting), this.done)),
      this.legend, this.made, element("p", { class: "pn-calls" }, this.calls));
    new ResizeObserver(() => this.makeRoom()).observe(this.running.parentElement.parentElement);
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
    this.roomFor = null;
    this.token.style.minHeight = "";
    this.colours = new Map();
    this.longest = new Map(); // block table of each sequence
    for (const { sequences } of this.states)
      for (const [name, { table }] of sequences) {
        if (!this.colours.has(name)) this.colours.set(name, this.colours.size % COLOURS);
        this.longest.set(name, Math.max(this.longest.get(name) ?? 0, table?.length ?? 0));
      }
    this.about.textContent = recording.about;
    const { version, script, cache, model, algorithm } = recording.made_by;
    this.made.textContent = `Recorded by ${script} with ${version}: the model ${model}, algorithm="${algorithm}", ${cache}.`;
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
    this.swappedPart.hidden = !this.states.some(({ sequences }) => [...sequences.values()].some(({ table }) => !table));
    this.makeRoom();
    this.drawLegend();
    this.root.dataset.batch = name;
    this.controls.load(this.states.length);
  }

  /** Give each list room for its longest state, so that what comes and goes moves nothing below it. */
  makeRoom() {
    const width = this.running.clientWidth;
    if (!this.states || width === this.roomFor) return;
    this.roomFor = width;
    const perRow = Math.max(1, Math.floor((width + 3) / 37)); // as pool.css sets the sizes of rows and entries
    const lines = name => Math.ceil(7.5 * (32 + this.promptOf(name).length) / width);
    const most = heightOf => `${Math.max(...this.states.map(heightOf))}px`;
    const rows = ({ sequences }, swapped) => [...sequences].filter(([, { table }]) => !table === swapped).reduce(
      (sum, [name, { table }]) => sum + 13 + 22 * lines(name) + 33 * Math.ceil((table?.length ?? 0) / perRow), 0);
    this.running.style.minHeight = most(state => rows(state, false));
    this.swapped.style.minHeight = most(state => rows(state, true));
    this.waiting.style.minHeight = most(({ waiting }) => waiting.reduce((sum, [name]) => sum + 5 + 22 * lines(name), 0));
  }

  newBlock(tag, number, attributes = {}) {
    const made = element(tag, { class: "pn-block", ...attributes });
    if (!this.many) made.append(element("span", { class: "pn-no" }, number), element("b"), element("i"), element("em"));
    return made;
  }

  chooseBlock(event, number) {
    const { holders, filled } = this.state.blocks[number];
    const offset = offsetAt(event, filled, this.recording.block_size);
    const [name, logical] = holders.find(([holder]) => holder === this.chosen?.name) ?? holders[0] ?? [];
    this.choose(name ? { name, logical, offset } : { block: number, offset }, event);
  }

  get state() { return this.states[this.controls.step]; }

  // What is seen at a step. Only what differs from what is drawn is drawn anew.

  show(step) {
    const state = this.states[step], focused = this.root.contains(document.activeElement) && document.activeElement;
    state.blocks.forEach((block, number) => {
      if (this.drawn[number] !== block) this.drawBlock(this.blocks[number], number, block);
    });
    this.drawn = state.blocks;
    this.drawRows(state);
    const count = kind => state.blocks.filter(block => block.kind === kind).length;
    const total = `${plural(state.blocks.length, "block")} of ${this.recording.block_size} slots`;
    const facts = [
      `${count("used") + count("shared")} of ${total} in use`,
      count("shared") ? `${count("shared")} of them shared` : "", count("cached") ? `${count("cached")} cached` : "",
      `${count("free")} free`,
    ];
    this.facts.data = facts.filter(Boolean).join(", ");
    const calls = state.calls.slice(0, MOST_CALLS).join(", "), more = state.calls.length - MOST_CALLS;
    this.calls.data = calls && `Calls to the pool in this step: ${calls}${more > 0 ? ` and ${more} more` : ""}`;
    put(this.token, { "aria-live": "off" }); // of a step, the sentence says enough
    this.drawToken();
    if (focused && (!focused.isConnected || focused.closest("[hidden]"))) this.keepFocus(focused);
  }

  /** What had the focus is gone: the keys must go on working. */
  keepFocus(gone) {
    const slot = gone.dataset.holds && this.token.querySelector(".pn-slots [tabindex='0']");
    (slot || this.root.querySelector(".pn-line")).focus({ preventScroll: true });
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
    const who = names.join("+");
    box.children[1].textContent = names.length > 2 || who.length > 4 ? `\u00d7${names.length}` : who;
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
    put(this.swapped, { "data-empty": shown.get(this.swapped) ? "" : "none" });
    put(this.running, { "data-empty": shown.get(this.running) ? "" : "none" });
    if (this.queue !== state.waiting) {
      this.queue = state.waiting;
      this.waiting.replaceChildren(...state.waiting.map(([name, tokens, why]) => element("li", {}, element("b", {}, name),
        ` ${plural(tokens, "token")}${why === "preempted" ? ", preempted" : ""}`, element("q", {}, this.promptOf(name)))));
      this.waiting.dataset.empty = state.waiting.length ? "" : "none";
    }
    const done = state.done.length ? `Done: ${words(state.done)}.` : "";
    if (this.done.textContent !== done) this.done.textContent = done;
  }

  /** Return the beginning of a request's prompt; of a forked one, nothing. */
  promptOf(name) {
    const prompt = this.recording.made_by.requests[name]?.prompt ?? "";
    return prompt.length > MOST_PROMPT ? `${prompt.slice(0, MOST_PROMPT).replace(/\s+\S*$/, "")}\u2026` : prompt;
  }

  newRow(name) {
    const count = new Text();
    const table = element("div", { class: "pn-table", role: "group", "aria-label": `Block table of ${name}` });
    const box = element("div", { class: "pn-row", style: `--colour:var(--c${this.colours.get(name)})` },
      element("p", {}, element("b", { class: "pn-name" }, name), " ", count, element("q", {}, this.promptOf(name))), table);
    rove(table);
    const row = { box, count, entries: [], sequence: null };
    // All that it will ever need: an element that comes or goes makes the page's styles look at the whole page.
    for (let logical = 0; logical < this.longest.get(name); logical++) row.entries.push(this.newEntry(row, name, logical));
    table.append(...row.entries.map(entry => entry.box));
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
    for (let logical = 0; logical < row.entries.length; logical++) {
      const entry = row.entries[logical], number = table?.[logical], block = state.blocks[number];
      const filled = Math.min(size, length - logical * size);
      if (entry.number === number && entry.filled === filled && entry.block === block) continue;
      Object.assign(entry, { number, filled, block });
      this.drawEntry(row, entry, logical);
    }
  }

  newEntry(row, name, logical) {
    const size = this.recording.block_size;
    const box = element("button", { type: "button", class: "pn-entry", tabindex: logical ? -1 : 0, onclick: event => {
      const filled = Math.min(size, row.sequence.length - logical * size);
      this.choose({ name, logical, offset: offsetAt(event, filled, size) }, event);
    } }, new Text());
    put(box, { hidden: "" });
    return { box, number: undefined, filled: null, block: null };
  }

  drawEntry(row, { box, number, filled, block }, logical) {
    if (number === undefined) {
      put(box, { ...box.looks, hidden: "" });
      if (box.tabIndex === 0) {
        box.tabIndex = -1;
        row.entries[0].box.tabIndex = 0;
      }
      return;
    }
    const released = number < 0, kind = released ? "released" : block.kind;
    box.firstChild.data = released ? "\u2013" : number;
    put(box, {
      "data-kind": kind, "data-event": block?.event ?? "", "--fill": released ? 0 : this.level(filled), hidden: null,
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
    put(this.token, { "aria-live": "polite" });
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
    const block = there && state.blocks[found];
    const key = JSON.stringify([chosen, found, sequence?.length, block?.holders, block?.kind]);
    if (key === this.tokenKey && this.token.childElementCount) return;
    this.tokenKey = key;
    if (!chosen) {
      this.token.replaceChildren(element("p", {}, "Choose a token: click into a block or into a block table; or go there "
        + "with Tab, move with the arrow keys and press Enter."));
    } else if (!there) {
      const why = !sequence ? "is not in the pool" : !sequence.table ? "is swapped out"
        : found < 0 ? "has released this block" : "has no such token yet";
      this.token.replaceChildren(element("h3", {}, `Token ${chosen.logical * size + chosen.offset} of ${chosen.name}`),
        element("p", {}, `At this step ${chosen.name} ${why}.`));
    } else {
      this.token.replaceChildren(...tokenNodes(recording, state, chosen, found, {
        colour: chosen.name ? `var(--c${this.colours.get(chosen.name)})` : "var(--strong)",
        choose: (at, event) => this.chooseSlot(at, event),
      }));
    }
  }

  chooseSlot(at, event) {
    this.choose({ ...this.chosen, offset: at }, event);
    this.token.querySelectorAll(".pn-slots button")[at]?.focus();
  }

  mark(box, offset) {
    box.style.setProperty("--at", offset / this.recording.block_size);
    box.toggleAttribute("data-at", true);
    this.marked.push(box);
  }
}

for (const root of document.querySelectorAll(".pn-player[data-batches]")) new Player(root);
