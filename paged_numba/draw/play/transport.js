// Playback controls of the pages that move: first, back, play, forward, last, a time line and a speed.
//
//     import { transport } from "./transport.js";
//     const controls = transport(root, { show, say });
//     controls.load(count);                        // a recording of `count` steps; shows its first
//
// root         element with the class `pn-player`, around the whole player. The controls become its first child, and the
//              keys work while the focus is anywhere inside: arrows, Home, End, space, and "," and "." where the
//              arrows move something else. A part that uses a key itself calls preventDefault(). Arrows, "," and "."
//              also work while nothing on the page has the focus.
// show(step)   draws a step; called only when the step changes, or a recording is loaded.
// say(step)    returns the sentence that says what happens at a step. It is shown, and read out by screen readers.

const STEPS_PER_SECOND = 2; // at speed 1
const LONGEST = 3; // Of the longest texts, one takes most lines.
const SPEEDS = [0.25, 0.5, 1, 2, 4, 10];

const ICONS = {
  first: "M5 5v14M19 5v14l-10-7z",
  back: "M17 5v14l-10-7z",
  play: "M7 4v16l13-8z",
  pause: "M7 5v14M10 5v14M15 5v14M18 5v14",
  forward: "M7 5v14l10-7z",
  last: "M19 5v14M5 5v14l10-7z",
};

/** Return an element with attributes and children; a key that begins with "on" is a listener. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Add the controls to `root`; return { load, go, play, pause, step, count, playing }. */
export function transport(root, { show, say }) {
  let step = 0, count = 1, timer = 0;

  const button = (name, label, onclick) => {
    const made = element("button", { type: "button", class: `pn-do-${name}`, "aria-label": label, title: label, onclick });
    made.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;
    return made;
  };
  const first = button("first", "First step", () => move(0));
  const back = button("back", "One step back", () => move(step - 1));
  const toggle = button("play", "Play", () => (timer ? pause() : play()));
  const forward = button("forward", "One step forward", () => move(step + 1));
  const last = button("last", "Last step", () => move(count - 1));
  const line = element("input", {
    type: "range", class: "pn-line", min: 0, step: 1, "aria-label": "Time line", oninput: () => move(Number(line.value)),
  });
  const speed = element("select", { "aria-label": "Speed", class: "pn-speed" },
    ...SPEEDS.map(rate => element("option", { value: rate }, `${rate}\u00d7`)));
  speed.value = 1;
  const place = new Text(), sentence = new Text();
  const spoken = element("p", { class: "pn-say", "aria-live": "polite" }, element("b", {}, place), " ", sentence);
  // Behind the sentence, unseen: the longest ones, which make room, so that no sentence moves what is below it.
  const room = element("div", { class: "pn-room", "aria-hidden": true });
  const bar = element("div", { class: "pn-transport", role: "group", "aria-label": "Playback" },
    element("div", { class: "pn-buttons" }, first, back, toggle, forward, last, speed), line,
    element("div", { class: "pn-said" }, spoken, room));
  root.prepend(bar);

  function draw() {
    line.value = step;
    line.setAttribute("aria-valuetext", `step ${step} of ${count - 1}`);
    place.data = `Step ${step} of ${count - 1}.`;
    sentence.data = say(step);
    // aria-disabled, not disabled: a disabled button loses the focus, and with it the keys.
    for (const made of [first, back]) enable(made, step > 0);
    for (const made of [forward, last]) enable(made, step < count - 1);
    show(step);
  }

  function enable(made, can) {
    if (made.getAttribute("aria-disabled") !== String(!can)) made.setAttribute("aria-disabled", !can);
  }

  function go(to) {
    to = Math.max(0, Math.min(count - 1, to));
    if (to === step) return;
    step = to;
    draw();
  }

  /** What a reader does by hand ends the playing. */
  function move(to) {
    pause();
    go(to);
  }

  function face(name, label) {
    toggle.className = `pn-do-${name}`;
    toggle.title = label;
    toggle.setAttribute("aria-label", label);
    toggle.querySelector("path").setAttribute("d", ICONS[name]);
  }

  function wait() {
    timer = setTimeout(tick, 1000 / (STEPS_PER_SECOND * Number(speed.value)));
  }

  function tick() {
    go(step + 1);
    if (step === count - 1) pause();
    else wait();
  }

  function play() {
    if (timer || count < 2) return;
    // Screen readers would fall behind: while it plays they read nothing out, and then the step at which it stopped.
    spoken.setAttribute("aria-live", "off");
    face("pause", "Pause");
    if (step === count - 1) go(0);
    wait();
  }

  function pause() {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    face("play", "Play");
    spoken.setAttribute("aria-live", "polite");
    sentence.data = "";
    sentence.data = say(step);
  }

  function load(steps, at = 0) {
    pause();
    count = steps;
    step = Math.max(0, Math.min(count - 1, at));
    line.max = count - 1;
    const texts = Array.from({ length: count }, (_, number) => `Step ${number} of ${count - 1}. ${say(number)}`);
    texts.sort((one, other) => other.length - one.length);
    room.replaceChildren(...texts.slice(0, LONGEST).map(text => element("p", {}, text)));
    draw();
  }

  function press(event) {
    const { target, key } = event;
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (target.matches("select, textarea, input:not([type=range])")) return;
    if (key === " " && target.matches("button, a, summary")) return;
    const keys = {
      ArrowLeft: () => move(step - 1), ",": () => move(step - 1), Home: () => move(0),
      ArrowRight: () => move(step + 1), ".": () => move(step + 1), End: () => move(count - 1),
      " ": () => (timer ? pause() : play()),
    };
    if (!keys[key]) return;
    event.preventDefault();
    keys[key]();
  }
  root.addEventListener("keydown", press);
  // Nothing has the focus: the keys that step work as well. Those that scroll the page go on doing so.
  document.addEventListener("keydown", event => {
    if (event.target === document.body && ["ArrowLeft", "ArrowRight", ",", "."].includes(event.key)) press(event);
  });

  return {
    load, go, play, pause,
    get step() { return step; },
    get count() { return count; },
    get playing() { return timer !== 0; },
  };
}
