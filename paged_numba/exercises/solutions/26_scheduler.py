"""
26 · One step of a scheduler
============================

Write the function ``schedule``, which decides which requests take part in the next step of a server. A request has
``tokens`` tokens, its prompt and its answer so far, and holds ``blocks`` blocks of the pool. To take part, it must
hold ``ceil(tokens / block_size)`` blocks.

1. Running requests come first, in order: each takes one more block if it needs one. If no block is free, the last
   request of ``running`` gives up all its blocks and goes to the front of ``waiting``. This repeats until a block is
   free. The request that needs the block may itself be the last.
2. Then waiting requests join, in order: the first takes all its blocks and goes to the end of ``running``, if at
   least ``watermark`` blocks are still free afterwards. If not, it and all requests behind it go on waiting.

Change the two lists and the requests in place, and return how many blocks are free at the end.

Shapes::

    running, waiting        list of requests; those that wait hold 0 blocks
    num_free                int, free blocks of the pool
    block_size, watermark   int

Blocks of 4 tokens, 2 of them free, watermark 1. "a" needs a third block::

              before                       after
    running   a: 9 tokens, 2 blocks        a: 9 tokens, 3 blocks
              b: 6 tokens, 2 blocks        b: 6 tokens, 2 blocks
    waiting   c: 3 tokens                  c: 3 tokens
    free      2                            1

Example: 1 block is free after step 1. "c" needs 1 block, which would leave 0, less than the watermark, so "c" waits.

The scheduler of the package's engine, ``paged_numba/serving/scheduler.py``, has the same two parts. It leaves out the
second one in a step that preempts.
"""


def schedule(running, waiting, num_free, block_size, watermark):
    # >>> Your code: 1. blocks for running requests, 2. waiting requests that join (16 lines).
    for request in list(running):
        needed = -(-request.tokens // block_size) - request.blocks
        while request in running and needed > num_free:
            last = running.pop()
            num_free += last.blocks
            last.blocks = 0
            waiting.insert(0, last)
        if request in running:
            request.blocks += needed
            num_free -= needed
    while waiting and num_free - -(-waiting[0].tokens // block_size) >= watermark:
        request = waiting.pop(0)
        request.blocks = -(-request.tokens // block_size)
        num_free -= request.blocks
        running.append(request)
    return num_free
    # <<<
