// Pictures of one warp's access: sectors of global memory, banks of shared memory, lanes of a shuffle. As SVG text.

const COLUMNS = 32, WORD = 4, CELL = 16, LEFT = 52, TOP = 16, GAP = 6;
const WIDTH = LEFT + COLUMNS * CELL + 3 * GAP + 2;
const MOST_ROWS = 32;

/** Return the words of `touched` ({lane, byte, size}) by number: the lanes that access each. */
function words(touched) {
  const found = new Map();
  for (const { lane, byte, size } of touched) {
    for (let word = Math.floor(byte / WORD); word * WORD < byte + size; word++) {
      if (!found.has(word)) found.set(word, []);
      found.get(word).push(lane);
    }
  }
  return found;
}

function svg(height, label, content) {
  return `<svg class="pn-access" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${label}">${content}</svg>`;
}

/** Return the left edge of a word's column; `gap` lies between two sectors. */
function left(column, gap) {
  return LEFT + column * CELL + Math.floor(column / 8) * gap;
}

function cells(found, rowOf, chosen, gap) {
  let used = "", mine = "", texts = "";
  for (const [word, lanes] of found) {
    const row = rowOf(Math.floor(word / COLUMNS));
    if (row < 0) continue;
    const x = left(word % COLUMNS, gap), y = TOP + row * CELL;
    used += `M${x + 1.5} ${y + 2}h${CELL - 3}v${CELL - 4}h-${CELL - 3}z`;
    if (lanes.includes(chosen)) mine += `M${x} ${y}h${CELL}v${CELL}h-${CELL}z`;
    const text = lanes.length === 1 ? lanes[0] % 32 : `${lanes.length}×`;
    texts += `<text x="${x + CELL / 2}" y="${y + 11.5}" class="n">${text}</text>`;
  }
  return `<path class="used" d="${used}"/>${texts}<path class="mine" d="${mine}"/>`;
}

/** Draw the touched 128-byte lines of global memory, a row each, with their four sectors. */
export function globalPicture(touched, chosen, label) {
  const found = words(touched);
  const lines = [...new Set([...found.keys()].map(word => Math.floor(word / COLUMNS)))].sort((a, b) => a - b);
  const shown = lines.slice(0, MOST_ROWS);
  const sectors = new Set([...found.keys()].map(word => Math.floor(word / 8)));
  let moved = "", idle = "", texts = "";
  shown.forEach((line, row) => {
    const y = TOP + row * CELL;
    for (let sector = 0; sector < 4; sector++) {
      const box = `M${left(8 * sector, GAP) - 1} ${y + .5}h${8 * CELL + 2}v${CELL - 1}h-${8 * CELL + 2}z`;
      if (sectors.has(line * 4 + sector)) moved += box;
      else idle += box;
    }
    texts += `<text x="${LEFT - 6}" y="${y + 12}" class="row">${(line * 128).toLocaleString("en")}</text>`;
  });
  for (let sector = 0; sector < 4; sector++) {
    texts += `<text x="${left(8 * sector, GAP)}" y="11" class="head">+${sector * 32}</text>`;
  }
  const height = TOP + shown.length * CELL + 2;
  const content = `<text x="${LEFT - 6}" y="11" class="row head">byte</text>${texts}<path class="idle" d="${idle}"/>`
    + `<path class="moved" d="${moved}"/>${cells(found, line => shown.indexOf(line), chosen, GAP)}`;
  return svg(height, label, content) + more(lines.length - shown.length);
}

/** Draw the rows of shared memory that are touched, a bank for each column; below, the words that a bank serves. */
export function sharedPicture(touched, chosen, label, bytes) {
  const found = words(touched);
  const all = Math.ceil(bytes / (WORD * COLUMNS));
  const lines = all <= 8
    ? Array.from({ length: all }, (_, row) => row)
    : [...new Set([...found.keys()].map(word => Math.floor(word / COLUMNS)))].sort((a, b) => a - b);
  const shown = lines.slice(0, MOST_ROWS);
  const counts = new Array(COLUMNS).fill(0);
  for (const word of found.keys()) counts[word % COLUMNS]++;
  let grid = "", texts = "";
  const bottom = TOP + shown.length * CELL;
  for (let bank = 0; bank <= COLUMNS; bank++) grid += `M${LEFT + bank * CELL} ${TOP}V${bottom}`;
  for (let row = 0; row <= shown.length; row++) grid += `M${LEFT} ${TOP + row * CELL}h${COLUMNS * CELL}`;
  shown.forEach((line, row) => {
    const byte = (line * 128).toLocaleString("en");
    texts += `<text x="${LEFT - 6}" y="${TOP + row * CELL + 12}" class="row">${byte}</text>`;
  });
  const most = Math.max(...counts);
  for (let bank = 0; bank < COLUMNS; bank++) {
    const x = LEFT + bank * CELL + CELL / 2;
    if (bank % 4 === 0) texts += `<text x="${x}" y="11" class="n head">${bank}</text>`;
    if (counts[bank]) {
      const look = counts[bank] > 1 ? "conflict" : "head";
      texts += `<text x="${x}" y="${bottom + 13}" class="n ${look}">${counts[bank]}</text>`;
    }
  }
  const content = `<text x="${LEFT - 6}" y="11" class="row head">bank</text><path class="grid" d="${grid}"/>${texts}`
    + `<text x="${LEFT - 6}" y="${bottom + 13}" class="row ${most > 1 ? "conflict" : "head"}">words</text>`
    + cells(found, line => shown.indexOf(line), chosen, 0);
  return svg(bottom + 18, label, content) + more(lines.length - shown.length);
}

/** Draw which lane each lane reads from: `pairs` of lanes of the warp. */
export function shufflePicture(pairs, chosen, label) {
  let lines = "", mine = "", texts = "";
  const x = lane => LEFT + lane * CELL + CELL / 2;
  for (const [lane, from] of pairs) {
    const path = `M${x(from)} ${TOP + CELL}L${x(lane)} ${TOP + 4 * CELL}`;
    if (lane === chosen % 32) mine += path;
    else lines += path;
  }
  for (let lane = 0; lane < COLUMNS; lane++) {
    texts += `<text x="${x(lane)}" y="${TOP + 12}" class="n">${lane}</text>`
      + `<text x="${x(lane)}" y="${TOP + 4 * CELL + 14}" class="n">${lane}</text>`;
  }
  texts += `<text x="${LEFT - 6}" y="${TOP + 12}" class="row head">from</text>`
    + `<text x="${LEFT - 6}" y="${TOP + 4 * CELL + 14}" class="row head">to</text>`;
  return svg(TOP + 5 * CELL + 4, label, `<path class="lines" d="${lines}"/><path class="mine" d="${mine}"/>${texts}`);
}

function more(rows) {
  return rows > 0 ? `<p class="pn-quiet">${rows} more rows.</p>` : "";
}
