"""
24 · Preempted, and another story
=================================

**A request that was preempted goes on with its answer, but only its prompt is computed again.**

:Reported: `vLLM for Gaudi 524 <https://github.com/vllm-project/vllm-gaudi/pull/524>`__,
  `FastDeploy 3080 <https://github.com/PaddlePaddle/FastDeploy/pull/3080>`__
:Caught by: a property that compares a tight pool with an ample one
:Its message: ``gets another answer when it is preempted``
"""

# %%
# What was reported
# -----------------
# When memory runs short, a request loses its blocks; later everything up to its last token must be computed again, the
# prompt and what was generated. FastDeploy left the latter out until July 2025. In November 2025 several faults of
# preemption were mended in vLLM's version for Gaudi: one was that a request counted as decoding again as soon as its
# prompt was computed.

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paged_numba.testing.mutants import Difference, caught, installed
from paged_numba.testing.mutants.servers import RecomputesThePromptAlone
from paged_numba.testing.serving import Workload, answers_do_not_depend_on_the_pool, serve

# %%
# The fault
# ---------
# When the server admits a request, ``_tokens`` says what to compute. After a preemption, that includes the answer as
# far as it has come.

WRONG = RecomputesThePromptAlone
Difference.of(WRONG).show()

# %%
# How it shows
# ------------
# Two requests, with prompts of 3 tokens and answers of 6. A pool of 8 blocks holds both. 3 blocks hold
# one of them to its end and the beginning of the other: B came last, and is preempted.

two = Workload([(3, 6), (3, 6)], spare_blocks=1)

with installed(WRONG):
    for num_blocks in (8, 3):
        server = serve(two, num_blocks)
        print(
            f"{num_blocks:2} blocks:", *(f"{name} {[*text]}" for name, text in sorted(server.texts.items()))
        )

# %%
# The answer of B has the right length, and begins as it should.
#
# The test that does not see it
# -----------------------------
# The server compares every attention output with dense attention, over the tokens that it believes the request to
# have. Cache and belief are wrong together, so they agree.


def their_test():
    server = serve(two)
    assert server.cache.allocator.stats().num_preemptions > 0
    assert server.checks.passed


with installed(WRONG):
    their_test()

# %%
# The test that does
# ------------------
# The property serves the same requests with little memory and with enough.


@settings(derandomize=True, deadline=None, max_examples=5, phases=(Phase.generate, Phase.shrink))
@given(answer=st.integers(1, 5), spare_blocks=st.integers(0, 2))
def our_test(answer, spare_blocks):
    answers_do_not_depend_on_the_pool(Workload([(3, answer), (3, answer)], spare_blocks))


with installed(WRONG):
    print(caught(our_test))

# %%
# The fix: compute the prompt and the answer so far. ``tests/test_mutants.py`` has two servers of this kind;
# :doc:`lesson 15 </lessons/15_server>` writes one. The engine that serves a real model cannot forget the answer: its
# ``preempt`` (``paged_numba/serving/scheduler.py``) sets the number of computed tokens to 0, and prompt and answer are
# one list of tokens.
#
# **In one sentence.** Memory decides when an answer comes, never which: compare little memory with much.
