// The page "A kernel in lockstep": chooses a recording, and plays it.

import { player } from "./player.js";
import { element } from "./transport.js";

const root = document.querySelector(".pn-kernel");
const { base, recordings } = root.dataset;
root.replaceChildren();

const choice = element("select", { onchange: () => open(choice.value) },
  ...Object.entries(JSON.parse(recordings)).map(([name, title]) => element("option", { value: name }, title)));
const note = element("p", { class: "pn-note" }), made = element("p", { class: "pn-quiet" });
const look = element("button", { type: "button", onclick: () => go(Number(look.value)) });
const { load, go } = player(root);
root.prepend(element("div", { class: "pn-choices" }, element("label", {}, "Kernel ", choice), look), note);
root.append(made);

async function open(name) {
  const answer = await fetch(`${base}kernel-${name}.json`);
  const recording = await answer.json();
  if (name !== choice.value) return; // another one was chosen meanwhile
  note.textContent = recording.note;
  look.hidden = recording.look_at === undefined;
  look.value = recording.look_at;
  look.textContent = `Go to step ${recording.look_at}`;
  made.textContent = `Made by ${recording.made_by}.`;
  load(recording);
}

open(choice.value);
