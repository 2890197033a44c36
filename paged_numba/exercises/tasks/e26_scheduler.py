"""Exercise 26: one step of a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from ...draw.picture import Picture
from ...draw.pools.block_tables import BlockTables
from ..checker.task import Task, Wrong
from ..checker.values import Mistake, plain


@dataclass
class Request:
    """A request: its name, its tokens so far, and the blocks that it holds."""

    name: str
    tokens: int
    blocks: int = 0


@dataclass
class Case:
    """The requests before a step, and the pool."""

    running: list[Request]
    waiting: list[Request]
    num_free: int
    block_size: int
    watermark: int

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""
        return self.num_free + sum(request.blocks for request in self.running)

    def blocks_of(self, request: Request) -> int:
        """Return how many blocks a request must hold."""
        return -(-request.tokens // self.block_size)


def _copies(requests: list[Request]) -> list[Request]:
    return [replace(request) for request in requests]


class Scheduler(Task):
    """Growth, preemption and admission."""

    answer = "schedule"
    kernel = False
    launches = False
    lesson = "15_server"
    max_examples = 200
    hints = (
        "Go through a copy of running, list(running), since the list gets shorter as you go. A request that was "
        "preempted for an earlier one gets no turn, so check that it is still running.",
        "While a request is still running and needs more blocks than are free: last = running.pop(), add its blocks "
        "to the free ones, and waiting.insert(0, last).",
        "Waiting requests join in order. The first that does not fit ends the loop, even if one behind it would fit.",
        "while waiting and num_free - needed >= watermark, where needed = -(-waiting[0].tokens // block_size).",
    )
    wrong = (
        Wrong("the first is preempted", "running.pop()", "running.pop(0)", "right", "gives up its blocks first"),
        Wrong("the preempted go to the end of the queue", "waiting.insert(0, last)", "waiting.append(last)", "right",
              "the first to wait, 'a', needs"),
        Wrong("the blocks of the preempted are lost", "            num_free += last.blocks\n",
              "            num_free += min(last.blocks, 1)\n", "right", "in the pool are free"),
        Wrong("the preempted keep their blocks", "            last.blocks = 0\n", "", "right", "and must hold 0"),
        Wrong("no watermark", ">= watermark", ">= 0", "right", "the watermark is 1"),
        Wrong("the watermark applies to those that run", "needed > num_free:",
              "needed + watermark > num_free:", "right", "those that run need 0 blocks more"),
        Wrong("one behind the first that does not fit joins",
              "    while waiting and num_free - -(-waiting[0].tokens // block_size) >= watermark:\n"
              "        request = waiting.pop(0)\n",
              "    for request in list(waiting):\n"
              "        if num_free - -(-request.tokens // block_size) < watermark:\n            continue\n"
              "        waiting.remove(request)\n", "right",
              "the first to wait, 'a', needs"),
        Wrong("one block too many at a multiple of the block size",
              "needed = -(-request.tokens // block_size) - request.blocks",
              "needed = request.tokens // block_size + 1 - request.blocks", "right",
              "those that run need 0 blocks more"),
        Wrong("the number of free blocks is not returned", "return num_free", "return None", "right", "got None"),
    )  # fmt: skip

    def worked(self) -> Case:
        """Return the case of the statement."""
        return Case([Request("a", 9, 2), Request("b", 6, 2)], [Request("c", 3)], 2, 4, 1)

    def boundaries(self) -> Sequence[Case]:
        """Return blocks that are just enough, and one too few."""
        a, b, c = Request("a", 5, 1), Request("b", 4, 1), Request("c", 4)
        return (
            Case([], [], 1, 4, 0),
            Case([], _copies([c]), 1, 4, 0),
            Case([], _copies([c]), 1, 4, 1),
            Case(_copies([a]), [], 0, 4, 0),
            Case(_copies([a, b]), [], 0, 4, 0),
            Case(_copies([a]), _copies([c]), 1, 4, 0),
        )

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws requests, each of which may need a block more than it holds."""
        tokens = st.lists(st.integers(1, 13), max_size=4)
        return st.builds(_case, tokens, tokens, st.integers(0, 5), st.integers(1, 4), st.integers(0, 2))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Call the function with copies of the requests."""
        running, waiting = _copies(case.running), _copies(case.waiting)
        num_free = plain(answer(running, waiting, case.num_free, case.block_size, case.watermark))
        return {"running": running, "waiting": waiting, "num_free": num_free}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Return the first decision that is wrong."""
        right = _step(case)
        if result == right:
            return None
        return Mistake(_why(case, result, right), _shown(result), _shown(right))

    def describe(self, case: Case) -> str:
        """Return the arguments."""
        state = _shown({"running": case.running, "waiting": case.waiting, "num_free": case.num_free})
        return f"{state}\nblock_size = {case.block_size}, watermark = {case.watermark}"

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the blocks that the running requests hold in the end, counted from block 0 on."""
        running = self.run(answer, case)["running"]
        tables: dict[str, list[int]] = {}
        first = 0
        for request in running:
            tables[request.name] = list(range(first, first + request.blocks))
            first += request.blocks
        lens = {request.name: min(request.tokens, request.blocks * case.block_size) for request in running}
        if not tables or first > case.num_blocks:
            return None
        return BlockTables(case.num_blocks, case.block_size, tables, lens, "Blocks after the step")


def _step(case: Case) -> dict[str, Any]:
    """Return the outcome of a step: who must go is found by counting, before anything changes."""
    running, waiting = _copies(case.running), _copies(case.waiting)
    free = case.num_free
    place = 0
    while place < len(running):
        more = case.blocks_of(running[place]) - running[place].blocks
        if more <= free:
            free -= more
            running[place].blocks += more
            place += 1
        else:
            free += running[-1].blocks
            waiting.insert(0, replace(running.pop(), blocks=0))
    while waiting and free - case.blocks_of(waiting[0]) >= case.watermark:
        joins = waiting.pop(0)
        joins.blocks = case.blocks_of(joins)
        free -= joins.blocks
        running.append(joins)
    return {"running": running, "waiting": waiting, "num_free": free}


def _why(case: Case, got: dict[str, Any], right: dict[str, Any]) -> str:
    """Return what is wrong with an outcome: who runs, who waits, what they hold, or what is free."""
    runs, must_run = ([one.name for one in state["running"]] for state in (got, right))
    waits, must_wait = ([one.name for one in state["waiting"]] for state in (got, right))
    before = [request.name for request in case.running]
    if sorted(runs + waits) != sorted(must_run + must_wait):
        return "each request must run or wait, and none may do both"
    for name in must_run:
        if name not in runs:
            return f"{name!r} must run{_reason(case, name, before, must_run)}"
    for name in runs:
        if name in before and name not in must_run:
            return f"{name!r} must wait: a block is missing, and of those that run it is the last"
        if name not in must_run:
            return f"{name!r} must wait: {_too_few(case, right, name)}"
    if runs != must_run:
        return "the order of those that run is wrong"
    if waits != must_wait:
        return "the order of those that wait is wrong"
    for state in ("running", "waiting"):
        for one, other in zip(got[state], right[state], strict=True):
            if one != other:
                return f"{one.name!r} holds {_blocks(one.blocks)} in the end, and must hold {other.blocks}"
    if type(got["num_free"]) is not int:
        return f"schedule must return the number of free blocks, got {got['num_free']!r}"
    return f"it returns {got['num_free']}, and {right['num_free']} of {_blocks(case.num_blocks)} in the pool are free"


def _reason(case: Case, name: str, before: list[str], must_run: list[str]) -> str:
    """Return why a request must run that does not."""
    if name not in before:
        return ": it is the first to wait, and its blocks and the watermark are free"
    if any(other not in must_run for other in before):
        return f": the last of those that run, {before[-1]!r}, gives up its blocks first"
    more = sum(case.blocks_of(request) - request.blocks for request in case.running)
    return f": those that run need {_blocks(more)} more, and {case.num_free} are free"


def _too_few(case: Case, right: dict[str, Any], name: str) -> str:
    first, free = right["waiting"][0], right["num_free"]
    who = "it" if name == first.name else f"the first to wait, {first.name!r},"
    are = f"{free} {'is' if free == 1 else 'are'} free at its turn"
    return f"{who} needs {_blocks(case.blocks_of(first))}, {are}, and the watermark is {case.watermark}"


def _blocks(count: int) -> str:
    return f"{count} block{'s' * (count != 1)}"


def _shown(state: dict[str, Any]) -> str:
    lines = []
    for name in ("running", "waiting"):
        requests = (f"Request({one.name!r}, tokens={one.tokens}, blocks={one.blocks})" for one in state[name])
        lines.append(f"{name} = [{(',' + chr(10) + ' ' * 11).join(requests)}]")
    return "\n".join([*lines, f"num_free = {state['num_free']}"])


def _case(running: list[int], waiting: list[int], num_free: int, block_size: int, watermark: int) -> Case:
    """Return requests of which those that run have a token more than when they last took blocks."""
    names = iter("abcdefgh")
    runs = [Request(next(names), tokens, max(1, -(-(tokens - 1) // block_size))) for tokens in running]
    return Case(runs, [Request(next(names), tokens) for tokens in waiting], num_free, block_size, watermark)


TASK = Scheduler()
