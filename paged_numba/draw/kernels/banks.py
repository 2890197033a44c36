"""Banks of shared memory: which words of which bank a warp accesses at once, and in how many wavefronts."""

from __future__ import annotations

BANKS, WORD = 32, 4


class Banks:
    """The words that a warp accesses, by bank.

    Parameters
    ----------
    addresses : dict of int to int
        Byte at which the element of each active lane begins.
    itemsize : int
        Bytes of an element.

    Attributes
    ----------
    words : dict of int to dict
        By bank, the lanes of each of its words.
    """

    def __init__(self, addresses: dict[int, int], itemsize: int) -> None:
        self._addresses, self._per_lane = addresses, max(1, itemsize // WORD)
        self.words: dict[int, dict[int, list[int]]] = {}
        for lane, byte in sorted(addresses.items()):
            for word in self._words_of(byte):
                self.words.setdefault(word % BANKS, {}).setdefault(word, []).append(lane)

    def _words_of(self, byte: int) -> range:
        return range(byte // WORD, byte // WORD + self._per_lane)

    @property
    def wavefronts(self) -> int:
        """Passes through the banks; in one, each bank serves one word.

        Elements of 8 bytes are served half a warp at a time, those of 16 bytes a quarter. Two neighbouring parts are
        served together if each lane accesses the same element as its neighbour, lane i XOR 1, or as lane i XOR 2.
        """
        parts = min(self._per_lane, 4)
        if parts == 1:
            return self._passes(range(BANKS))
        wide, total = BANKS // parts, 0
        for first in range(0, BANKS, 2 * wide):
            both = range(first, first + 2 * wide)
            if any(self._same(both, apart) for apart in (1, 2)):
                total += self._passes(both)
            else:
                total += self._passes(both[:wide]) + self._passes(both[wide:])
        return total

    def _passes(self, lanes: range) -> int:
        """Return the most words of one bank that these lanes access."""
        words = {
            w for lane in lanes if lane in self._addresses for w in self._words_of(self._addresses[lane])
        }
        banks = [word % BANKS for word in words]
        return max(map(banks.count, banks), default=0)

    def _same(self, lanes: range, apart: int) -> bool:
        return all(
            self._addresses[lane] == self._addresses[lane ^ apart]
            for lane in lanes
            if lane in self._addresses and lane ^ apart in self._addresses
        )

    @property
    def conflicts(self) -> int:
        """Wavefronts beyond those that the words would need if they were spread evenly over the banks."""
        words = sum(map(len, self.words.values()))
        return self.wavefronts - -(-words // BANKS)
