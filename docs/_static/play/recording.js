// A recording of a pool, and what follows from it: the state at each step, and the way from a token to its slot.

export const WARP = 32;

/** Tell whether a block is as it was. */
const same = (a, b) => a.event === b.event && a.source === b.source && a.kind === b.kind && a.filled === b.filled
  && a.cached === b.cached && String(a.holders) === String(b.holders);

/**
 * Return the state of a pool at each step of a recording.
 *
 * A state has
 *   say, calls  the sentence that says what happened, and the calls that the pool got;
 *   sequences   Map from a name to { length, table }; the table is null while the sequence is swapped out, and has -1
 *               in the places of released blocks;
 *   waiting     [name, number of tokens, "new" or "preempted"] of each request that waits;
 *   done        names of the sequences that have ended;
 *   blocks      { kind, holders, filled, cached, event, source } of each block. `kind` is free, used, shared or cached;
 *               `holders` are [name, logical block]; `event` says what happened to the block in this step, and
 *               `source` from which block it was copied.
 *
 * What is the same as in the step before is the same object, so that a page can draw the difference.
 */
export function statesOf(recording) {
  const { num_blocks: numBlocks, block_size: blockSize } = recording;
  const free = { kind: "free", holders: [], filled: 0, cached: false, event: null, source: null };
  let before = { sequences: new Map(), waiting: [], done: [], blocks: Array(numBlocks).fill(free) };
  let cached = new Set(), events = {};
  return recording.steps.map(step => {
    const sequences = new Map(before.sequences), done = new Set(before.done), touched = new Set();
    const touch = table => { for (const block of table ?? []) if (block >= 0) touched.add(block); };
    for (const [name, now] of Object.entries(step.sequences)) {
      touch(sequences.get(name)?.table);
      if (now) {
        // Deleted first when it is swapped in: the order is that of joining.
        if (now[1] && !sequences.get(name)?.table) sequences.delete(name);
        const [length, table = sequences.get(name).table] = now;
        sequences.set(name, { length, table });
        touch(table);
        done.delete(name);
      } else {
        sequences.delete(name);
        done.add(name);
      }
    }
    const waiting = step.waiting ?? before.waiting;
    for (const [name] of waiting) done.delete(name);
    if (step.cached) {
      const now = new Set(step.cached);
      for (const block of [...cached, ...now]) if (cached.has(block) !== now.has(block)) touched.add(block);
      cached = now;
    }
    for (const block of [...Object.keys(events), ...Object.keys(step.events)]) touched.add(Number(block));
    events = step.events;
    const blocks = [...before.blocks];
    if (touched.size) {
      const holders = new Map([...touched].map(block => [block, []]));
      const filled = new Map();
      for (const [name, { length, table }] of sequences) {
        (table ?? []).forEach((block, logical) => {
          if (!holders.has(block)) return;
          holders.get(block).push([name, logical]);
          const here = Math.min(blockSize, length - logical * blockSize);
          filled.set(block, Math.max(filled.get(block) ?? 0, here));
        });
      }
      for (const block of touched) {
        const held = holders.get(block), [event, source] = events[block] ?? [null, null];
        const kind = held.length > 1 ? "shared" : held.length ? "used" : cached.has(block) ? "cached" : "free";
        const now = {
          kind, holders: held, filled: kind === "cached" ? blockSize : filled.get(block) ?? 0,
          cached: cached.has(block), event, source,
        };
        if (!same(blocks[block], now)) blocks[block] = now;
      }
    }
    return before = { say: step.say, calls: step.calls, sequences, waiting, done: [...done], blocks };
  });
}

/**
 * Return where a token of a sequence lies, and which thread reads its key: { logical, offset, block, slot, reader }.
 *
 * `reader` is for the launch in which the sequence's newest token attends, as paged_numba/kernels/attention_block.py
 * divides the work: a thread block takes as many whole blocks at a time as it has threads, a token each. It is null
 * for a token that the window hides.
 */
export function pathOf(recording, sequence, position) {
  const { block_size: blockSize, window, launch } = recording;
  const logical = Math.floor(position / blockSize), offset = position % blockSize;
  const block = sequence.table[logical];
  const perPass = Math.floor(launch.threads / blockSize);
  const firstKey = window === null ? 0 : Math.max(0, sequence.length - window);
  const firstBlock = Math.floor(firstKey / blockSize), lastBlock = Math.ceil(sequence.length / blockSize) - 1;
  const thread = (logical - firstBlock) % perPass * blockSize + offset;
  const reader = position < firstKey ? null : {
    thread, warp: Math.floor(thread / WARP), numWarps: launch.threads / WARP,
    pass: Math.floor((logical - firstBlock) / perPass), numPasses: Math.floor((lastBlock - firstBlock) / perPass) + 1,
  };
  return { logical, offset, block, slot: block * blockSize + offset, reader };
}
