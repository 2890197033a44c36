// The chosen token: the way from its position to its slot, and the warp that reads it.

import { element } from "./transport.js";
import { rove, words } from "./parts.js";
import { WARP, pathOf } from "./recording.js";

/**
 * Return elements that tell of a token, or of a slot that holds none.
 *
 * `chosen` is { name, logical, offset } or, of a block that no sequence holds, { block, offset }; `number` is the block.
 * `choose(offset, event)` is called when another slot of the block is chosen.
 */
export function tokenNodes(recording, state, chosen, number, { colour, choose }) {
  const size = recording.block_size, { name, logical, offset } = chosen;
  const sequence = state.sequences.get(name), block = state.blocks[number];
  const first = sequence && logical * size; // position of the token in the first slot
  const filled = sequence ? Math.min(size, sequence.length - first) : block.filled;
  const labelOf = at => at >= filled ? "empty" : sequence ? `token ${first + at} of ${name}` : "a cached token";
  const slots = element("div", {
    class: "pn-slots", role: "group", "aria-label": `Slots of block ${number}`, style: `--slots:${size};--colour:${colour}`,
  }, ...Array.from({ length: size }, (_, at) => element("button", {
    type: "button", tabindex: at === offset ? 0 : -1, "aria-pressed": at === offset, "data-holds": at < filled,
    "aria-label": `Slot ${number * size + at}: ${labelOf(at)}`, onclick: event => choose(at, event),
  }, at >= filled ? "" : sequence ? first + at : "\u2022")));
  rove(slots);
  const slot = number * size + offset, arithmetic = `${number} * ${size} + ${offset} = ${slot}`;
  const known = sequence && offset < filled;
  const facts = known ? factsOf(recording, sequence, chosen, block, arithmetic) : [
    ["Block", number], ["Offset", offset], ["Slot", arithmetic],
    ["Holds", offset < filled ? "a token of a prefix. No sequence holds the block, so the pool may evict it." : "no token"],
  ];
  return [
    element("h3", {}, known ? `Token ${first + offset} of ${name}` : `Slot ${slot}`),
    element("p", {}, `Block ${number}, slots ${number * size} to ${number * size + size - 1}:`), slots,
    element("dl", {}, ...facts.flatMap(([term, text]) => [
      element("dt", {}, term), element("dd", {}, ...[text].flat()),
    ])),
  ];
}

function factsOf(recording, sequence, { name, logical, offset }, block, arithmetic) {
  const size = recording.block_size, position = logical * size + offset;
  const path = pathOf(recording, sequence, position);
  const others = block.holders.map(([other]) => other).filter(other => other !== name);
  const holds = `hold${others.length === 1 ? "s" : ""}`;
  return [
    ["Position", `${position}, of 0 to ${sequence.length - 1}`],
    ["Logical block", `${position} // ${size} = ${logical}`],
    ["Offset", `${position} % ${size} = ${offset}`],
    ["Block", `entry ${logical} of ${name}'s block table: ${path.block}`],
    ["Slot", arithmetic],
    ["Read by", readerText(recording.launch, name, path.reader)],
    ...others.length ? [["Shared", `${words(others)} ${holds} the block, too: one copy of the token for all.`]] : [],
  ];
}

function readerText({ kernel, threads, num_q_heads: heads, head_dim: headDim }, name, reader) {
  if (!reader) return "no thread: it lies outside the window of the newest token.";
  const last = Math.ceil(headDim / WARP) - 1; // warp that reads a part of the value
  const pass = reader.numPasses > 1 ? ` in pass ${reader.pass + 1} of ${reader.numPasses}` : "";
  return [
    element("strong", {}, `warp ${reader.warp}`),
    `: thread ${reader.thread} reads the key${pass}, when the newest token of ${name} attends in a layer (`,
    element("code", {}, kernel),
    `, ${threads} threads in ${reader.numWarps} warps; a thread block for each of ${heads} query heads). Then `
      + `${last ? `warps 0 to ${last} read` : "warp 0 reads"} the value, a thread for each of ${headDim} dimensions.`,
  ];
}
