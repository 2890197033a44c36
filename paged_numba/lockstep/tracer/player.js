// Plays recordings of kernels: the source beside the lanes, their variables, and what each access touches in memory.
//
//     import { player } from "./player.js";
//     player(document.querySelector(".pn-kernel")).load(recording);

import { globalPicture, sharedPicture, shufflePicture } from "./accesses.js";
import { STATES, Steps, WARP, between, item, plural, shown, size } from "./steps.js";
import { element, transport } from "./transport.js";

const MOST_PICTURES = 4;
const MOST_ELEMENTS = 256; // of a shared array whose contents can be seen, and of all that are unfolded

/** Return a function that calls `write` with a text that differs from the one before. */
function once(write) {
  let last;
  return text => {
    if (text !== last) write(text);
    last = text;
  };
}

/** Fill `box` with a small cell for each label; return functions that set a cell's value and its look. */
function valueCells(box, labels) {
  const made = labels.map(label => {
    const text = document.createTextNode("");
    const cell = element("span", { class: "pn-value" }, element("small", {}, String(label)), " ", text);
    return { cell, value: once(to => { text.data = to; }), look: once(to => { cell.className = `pn-value ${to}`; }) };
  });
  box.replaceChildren(...made.map(one => one.cell));
  return made;
}

/** Build the player in `root`, an element of the classes pn-player and pn-kernel; return { load, go }. */
export function player(root) {
  let recording, steps; // what is played, and the thread block of it
  let order = []; // the steps to go through
  let lane = 0, pinned = null; // the chosen lane; the number of the variable that was chosen, if one was
  let rows = [], cells = [], states = [], lines = new Map(); // of warps, of lanes, of lanes, of the source

  const part = (name, title, ...children) => {
    const id = `pn-${name}`;
    return element("section", { class: id, "aria-labelledby": `${id}-title` },
      element("h3", { id: `${id}-title` }, title), ...children);
  };
  const track = element("select", { id: "pn-track", onchange: () => start(Number(track.value)) });
  const follow = element("select", { id: "pn-follow", onchange: () => followed(order[controls.step] ?? 0) });
  const about = element("p", { class: "pn-about" });
  const trackBox = element("label", {}, "Thread block ", track);
  const followBox = element("label", {}, "Follow ", follow);
  const code = element("div", { class: "pn-code", tabindex: 0, role: "region", "aria-label": "Source" });
  const grid = element("div", {
    class: "pn-grid", role: "grid", tabindex: 0, "aria-label": "Lanes; arrow keys choose one",
    onkeydown: chooseByKey, onpointerdown: chooseByPointer,
    onpointermove: event => event.buttons && chooseByPointer(event),
  });
  const legend = element("p", { class: "pn-legend" }, ...Object.entries(STATES).map(([state, text]) =>
    element("span", {}, element("i", { class: `pn-lane ${state}` }), ` ${text}`)));
  const laneText = element("p", { class: "pn-chosen" });
  const table = element("table");
  // For fingers, to which the cells of the grid are too narrow; keys and screen readers have the grid.
  const acrossTitle = element("h4"), across = element("div", { class: "pn-values pn-across", onclick: event => {
    const cell = event.target.closest(".pn-value");
    if (cell) choose(acrossFirst + [...across.children].indexOf(cell));
  } });
  const pictures = element("div", { class: "pn-pictures" });
  const contents = element("div");
  const variables = part("variables", "Variables", acrossTitle, across, table);
  const key = element("p", { class: "pn-quiet" }, "A filled cell is a word of 4 bytes, with the lane that accesses it. "
    + "A shaded box is a sector of 32 bytes that moves; what lanes access of it is useful. The number below a bank "
    + "is how many words it serves, one in a wavefront. A thick frame marks the chosen lane.");
  const right = element("div", { class: "pn-right" },
    part("lanes", "Lanes", grid, legend, laneText), part("memory", "This step's accesses", pictures, key, contents));
  root.append(
    element("div", { class: "pn-choices" }, trackBox, followBox), about,
    element("div", { class: "pn-columns" }, part("source", "Source", code), right, variables));
  const drawLaneText = once(text => { laneText.textContent = text; });
  const drawAcrossTitle = once(text => { acrossTitle.textContent = text; });
  const drawPicture = once(text => { pictures.innerHTML = text; });
  const controls = transport(root, { show: place => show(order[place]), say: place => steps.say(order[place]) });

  // A recording, a thread block of it, the steps to go through.

  function load(given) {
    recording = { ...given, tracks: given.tracks.filter(one => one.steps.length) };
    if (!recording.tracks.length) {
      root.replaceChildren(element("p", {}, "No step was recorded."));
      return;
    }
    track.replaceChildren(...recording.tracks.map((one, number) => element("option", { value: number }, title(one))));
    trackBox.hidden = recording.tracks.length < 2;
    start(0);
  }

  function title(one) {
    const several = new Set(recording.tracks.map(other => other.launch)).size > 1;
    const place = one.thread_block.slice(0, size(one.blocks_per_grid).split("×").length).join(", ");
    return several ? `launch ${one.launch}, ${recording.functions[one.kernel].name}: ${place}` : place;
  }

  function start(number) {
    steps = new Steps(recording, number);
    [lane, pinned] = [0, null];
    about.textContent = [`${steps.title()}.`, ...recording.left_out.map(text => `Left out: ${text}.`)].join(" ");
    follow.replaceChildren(element("option", { value: "" }, "every warp"),
      ...steps.turns.map((_, warp) => element("option", { value: warp }, `warp ${warp}`)));
    followBox.hidden = steps.warps < 2;
    drawSource();
    drawLanes();
    drawVariables();
    drawShared();
    followed(0);
  }

  /** Go through the steps of the followed warp, from `at` on. */
  function followed(at) {
    order = follow.value === "" ? steps.steps.map((_, number) => number) : steps.turns[Number(follow.value)];
    const place = order.findIndex(number => number >= at);
    controls.load(order.length, place < 0 ? order.length - 1 : place);
    if (follow.value !== "" && lane >> 5 !== Number(follow.value)) choose(Number(follow.value) * WARP);
  }

  // What does not change from step to step.

  function drawSource() {
    lines = new Map();
    moved();
    const used = [steps.kernel, ...new Set(steps.steps.map(step => step.function))];
    code.replaceChildren(...[...new Set(used)].map(number => {
      const { name, file, first, lines: texts, docstring } = recording.functions[number];
      const indent = Math.min(...texts.filter(text => text.trim()).map(text => text.search(/\S/)));
      const folded = element("details", { class: "pn-doc" }, element("summary", {}, "docstring"));
      const box = element("div", { class: "pn-function" }, element("p", { class: "pn-quiet" }, `${name}, ${file}`));
      texts.forEach((text, offset) => {
        const line = first + offset;
        const made = element("div", { class: "pn-ln" }, element("span", { class: "pn-no" }, String(line)));
        const shownText = text.slice(indent);
        const depth = shownText.search(/\S|$/);
        const content = element("span", { class: "pn-text", style: `--depth:${depth}ch` });
        const comment = /^([^'"#]*)(#.*)$/.exec(shownText.trimStart());
        if (comment) content.append(comment[1], element("i", {}, comment[2]));
        else content.append(shownText.trimStart());
        made.append(content);
        lines.set(`${number}:${line}`, made);
        if (docstring && line >= docstring[0] && line <= docstring[1]) {
          if (line === docstring[0]) box.append(folded);
          folded.append(made);
        } else box.append(made);
      });
      return box;
    }));
  }

  function drawLanes() {
    cells = [];
    rows = [];
    states = [];
    grid.classList.toggle("many", steps.warps > 12);
    grid.replaceChildren(...Array.from({ length: steps.warps }, (_, warp) => {
      const width = Math.min(WARP, steps.threads - warp * WARP);
      const made = Array.from({ length: width }, (_, i) => {
        const number = warp * WARP + i;
        return element("i", {
          class: "pn-lane idle", role: "gridcell", id: `pn-lane-${number}`,
          "aria-label": `lane ${i}`, "data-lane": number,
        });
      });
      cells.push(...made);
      const status = document.createTextNode("");
      rows.push(once(text => { status.data = text; }));
      return element("div", { role: "row", class: "pn-warp" },
        element("span", { role: "rowheader" }, `warp ${warp}`),
        element("div", { class: "pn-cells", role: "presentation" }, ...made),
        element("span", { class: "pn-status" }, status));
    }));
    states = cells.map(() => "idle");
    mark(lane);
  }

  let entries = [], scopes = new Map(), scope = null, acrossFirst = -1, acrossCells = [], held = [];

  function drawVariables() {
    entries = steps.variables.map((variable, number) => {
      const own = document.createTextNode(""), warp = document.createTextNode("");
      const pin = element("button", {
        type: "button", "aria-pressed": "false", title: "show its value in each lane of the warp",
        onclick: () => {
          pinned = pinned === number ? null : number;
          drawChosen(order[controls.step]);
        },
      }, variable.name);
      const row = element("tr", {}, ...(variable.dtype
        ? [element("th", { scope: "row" }, pin, element("small", {}, ` ${variable.dtype}`)),
          element("td", {}, own), element("td", {}, warp)]
        : [element("th", { scope: "row" }, variable.name), element("td", { colspan: 2 }, own)]));
      return {
        number, variable, pin, row,
        own: once(text => { own.data = text; }), warp: once(text => { warp.data = text; }),
        look: once(text => { row.className = text; }),
      };
    });
    const head = element("thead", {}, element("tr", {}, ...["variable", "chosen lane", "its warp"].map(name =>
      element("th", { scope: "col" }, name))));
    scopes = new Map([...new Set(steps.steps.map(step => step.function))].map(number => {
      const mine = entries.filter(entry => entry.variable.function === number);
      return [number, element("tbody", { hidden: "" }, ...mine.map(entry => entry.row))];
    }));
    table.replaceChildren(head, ...scopes.values());
    scope = null;
  }

  // A step.

  let current = null;

  // Where the source stands: read when that changes, since reading at each step would lay the page out twice.
  const view = { top: 0, height: 0 };
  let tops = new Map();

  function topOf(line) {
    if (!tops.size) {
      view.height = code.clientHeight;
      for (const one of lines.values()) tops.set(one, one.offsetTop);
    }
    return tops.get(line);
  }

  function moved() {
    tops = new Map();
  }

  new ResizeObserver(moved).observe(code);
  code.addEventListener("toggle", moved, true);
  code.addEventListener("scroll", () => { view.top = code.scrollTop; }, { passive: true });

  function show(at) {
    const step = steps.steps[at];
    const line = lines.get(`${step.function}:${step.line}`);
    if (current !== line) {
      current?.classList.remove("now");
      current?.removeAttribute("aria-current");
      line?.classList.add("now");
      line?.setAttribute("aria-current", "step");
      current = line;
    }
    const place = line ? topOf(line) : 0;
    if (place < view.top + 20 || place > view.top + view.height - 60) {
      view.top = Math.max(0, place - view.height / 3);
      code.scrollTop = view.top;
    }
    laneText.removeAttribute("aria-live"); // only the step is read out
    // The chosen lane stays in a warp that runs.
    const { warps } = steps.mask(step.lanes);
    if (!warps.includes(lane >> 5)) mark(Math.min(warps[0] * WARP + lane % WARP, steps.threads - 1));
    for (let i = 0; i < cells.length; i++) {
      const state = steps.state(i, at);
      if (state !== states[i]) cells[i].classList.replace(states[i], state);
      states[i] = state;
    }
    rows.forEach((write, warp) => {
      const last = steps.latest(warp, at), barrier = steps.waits(warp, at);
      const gone = steps.complete && last === steps.turns[warp].at(-1) && last < at;
      write(barrier ? `barrier ${barrier}` : gone ? "ended" : last < 0 ? "" : `line ${steps.steps[last].line}`);
    });
    drawChosen(at);
  }

  /** Draw what depends on the chosen lane, too. */
  function drawChosen(at) {
    const step = steps.steps[at], warp = lane >> 5, first = warp * WARP;
    const changed = new Set((step.set ?? []).filter(([, lanes]) => steps.mask(lanes).warps.includes(warp))
      .map(([variable]) => variable));
    if (scope !== scopes.get(step.function)) {
      if (scope) scope.hidden = true;
      scope = scopes.get(step.function);
      scope.hidden = false;
    }
    for (const { number, variable, own, warp: all, look, pin } of entries) {
      if (variable.function !== step.function) continue;
      const values = steps.across(number, first, WARP, at);
      own(shown(values[lane - first]));
      all(values[0] === undefined ? "" : same(values) ? "the same" : between(values, 3).replace("= ", ""));
      look(changed.has(number) ? "changed" : "");
      pin.setAttribute("aria-pressed", String(number === pinned));
    }
    const variable = pinned ?? steps.assigned[at];
    const name = variable < 0 ? "No variable yet" : `${steps.variables[variable].name} in the lanes of warp ${warp}`;
    drawAcrossTitle(name);
    drawAcross(variable, first, at);
    drawPictures(at, step, warp);
    drawLaneText(steps.sayLane(lane, at));
  }

  function same(values) {
    return values.every(value => value === values[0]);
  }

  function drawAcross(variable, first, at) {
    if (acrossFirst !== first) {
      const count = Math.min(WARP, steps.threads - first);
      acrossCells = valueCells(across, Array.from({ length: count }, (_, i) => first + i));
      acrossFirst = first;
    }
    const found = variable < 0 ? [] : steps.across(variable, first, WARP, at);
    acrossCells.forEach(({ value, look }, i) => {
      value(shown(found[i], 3));
      look(`${states[first + i] === "runs" ? "" : "off"} ${first + i === lane ? "chosen" : ""}`);
    });
  }

  function drawPictures(at, step, warp) {
    const drawn = (step.accesses ?? []).map(access => pictureOf(access, warp));
    if (step.shuffle) {
      const { lanes } = steps.mask(step.shuffle.lanes);
      const pairs = lanes.map((one, rank) => [one, item(step.shuffle.from, rank) % WARP])
        .filter(([one]) => one >> 5 === warp).map(([one, from]) => [one % WARP, from]);
      const label = `${plural(pairs.length, "lane")} of warp ${warp}: each reads a register of another`;
      drawn.push(`<h4>shuffle</h4>${shufflePicture(pairs, lane, label)}`);
    }
    const more = drawn.length - MOST_PICTURES;
    if (more > 0) drawn.splice(MOST_PICTURES, more, `<p class="pn-quiet">${plural(more, "more access")}.</p>`);
    drawPicture(drawn.join("") || '<p class="pn-quiet">No memory access.</p>');
    drawContents(at);
  }

  /** Return the picture of an access by a warp, as HTML. */
  function pictureOf(access, warp) {
    const mask = steps.mask(access.lanes), array = steps.arrays[access.array];
    const touched = mask.lanes.map((one, rank) => ({ lane: one, byte: item(access.bytes, rank), size: array.itemsize }))
      .filter(one => one.lane >> 5 === warp);
    const verb = { load: "load", store: "store to", atomic: "update" }[access.kind];
    const text = `${verb} ${access.text || array.name}`;
    let caption = `${array.space} memory`, picture = "";
    if (!touched.length) caption += `; warp ${warp} does not take part`;
    else if (access.costs) {
      caption += `, warp ${warp}: ${steps.price(access, warp)}`;
      if (mask.warps.length > 1) caption += `; all ${mask.warps.length} warps: ${steps.price(access)}`;
      const bytes = array.itemsize * array.shape.reduce((a, b) => a * b, 1);
      const draw = array.space === "global" ? globalPicture : sharedPicture;
      picture = draw(touched, lane, escaped(`${text}, ${caption}`), bytes);
    }
    return `<h4>${escaped(text)}</h4><p class="pn-quiet">${escaped(caption)}</p>${picture}`;
  }

  /** Make room for what small shared arrays hold. */
  function drawShared() {
    acrossFirst = -1;
    held = steps.arrays.flatMap((array, number) => {
      const count = array.shape.reduce((a, b) => a * b, 1);
      if (array.space !== "shared" || count > MOST_ELEMENTS) return [];
      const box = element("div", { class: "pn-values" });
      const title = element("summary", {}, `${array.name} in shared memory, after this step`);
      const fold = element("details", { ontoggle: () => drawContents(order[controls.step]) }, title, box);
      const bytes = Array.from({ length: count }, (_, i) => array.start + i * array.itemsize);
      return [{ number, fold, bytes, cells: valueCells(box, bytes.map((_, i) => i)) }];
    });
    const few = held.reduce((sum, { bytes }) => sum + bytes.length, 0) <= MOST_ELEMENTS;
    for (const { fold } of held) fold.open = few;
    contents.replaceChildren(...held.map(({ fold }) => fold));
  }

  function drawContents(at) {
    const step = steps.steps[at];
    for (const { number, fold, bytes, cells: made } of held) {
      if (!fold.open) continue;
      const now = new Set((step.accesses ?? []).filter(access => access.array === number && access.kind !== "load")
        .flatMap(access => steps.mask(access.lanes).lanes.map((_, rank) => item(access.bytes, rank))));
      bytes.forEach((byte, i) => {
        const value = steps.stored(number, byte, at);
        made[i].value(shown(value, 4));
        made[i].look(`${now.has(byte) ? "changed" : ""} ${value === undefined ? "off" : ""}`);
      });
    }
  }

  function escaped(text) {
    return text.replace(/[&<>"]/g, letter => `&#${letter.charCodeAt()};`);
  }

  // The chosen lane.

  function choose(to) {
    to = Math.max(0, Math.min(steps.threads - 1, to));
    if (to === lane) return;
    laneText.setAttribute("aria-live", "polite");
    mark(to);
    drawChosen(order[controls.step]);
  }

  function mark(to) {
    cells[lane].classList.remove("chosen");
    lane = to;
    cells[lane].classList.add("chosen");
    grid.setAttribute("aria-activedescendant", `pn-lane-${lane}`);
  }

  function chooseByKey(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -WARP, ArrowDown: WARP };
    if (!(event.key in moves) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const to = lane + moves[event.key];
    if (to >= 0 && to < steps.threads) choose(to);
  }

  function chooseByPointer(event) {
    const under = event.type === "pointerdown" ? event.target : document.elementFromPoint(event.clientX, event.clientY);
    const cell = under?.closest?.("[data-lane]");
    if (cell && grid.contains(cell)) choose(Number(cell.dataset.lane));
  }

  /** Show a step; if the followed warp does not take part in it, the next one in which it does. */
  function go(at) {
    controls.pause();
    const place = order.findIndex(number => number >= at);
    controls.go(place < 0 ? order.length - 1 : place);
  }

  return { load, go };
}
