// The page "A kernel in lockstep": chooses a recording, and plays it.

import { player } from "./player.js";
import { element } from "./transport.js";

const root = document.querySelector(".pn-kernel");
const { base, recordings } = root.dataset;
root.replaceChildren();

const choice = element("select", { onchange: () => open(choice.value) },
  ...Object.entries(JSON.parse(recordings)).map(([name, title]) => element("option", { value: name }, title)));
const note = element("p", { class: "pn-note" }), made = element("p", { class: "pn-quiet" });
const { load } = player(root);
root.prepend(element("div", { class: "pn-choices" }, element("label", {}, "Kernel ", choice)), note);
root.append(made);

async function open(name) {
  const answer = await fetch(`${base}kernel-${name}.json`);
  const recording = await answer.json();
  if (name !== choice.value) return; // another one was chosen meanwhile
  note.textContent = recording.note;
  made.textContent = `Made by ${recording.made_by}.`;
  load(recording);
}

open(choice.value);
