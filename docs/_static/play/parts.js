// Small parts of the page "A batch being served".

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const words = names => names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : `${names[0]}`;

/** Give an element attributes and, by names that begin with "--", style; null removes. What it has already costs nothing. */
export function put(box, looks) {
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
export function rove(box) {
  const stops = () => [...box.querySelectorAll("button:not([hidden])")];
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
export function offsetAt(event, filled, blockSize) {
  const box = event.currentTarget.getBoundingClientRect();
  const there = event.detail ? Math.floor((event.clientX - box.left) / box.width * blockSize) : blockSize;
  return Math.max(0, Math.min(there, filled - 1));
}
