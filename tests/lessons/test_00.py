"""Lesson 00: the numbers in its prose, and what its questions say."""

import pytest
from reading import lesson

import paged_numba as pn

LESSON = lesson(0)


def test_numbers_in_the_prose():
    made = LESSON.run()
    requests, serve = made["requests"], made["serve"]
    prompts = [-(-prompt // 16) for _, prompt, _ in list(requests.values())[:5]]
    stats = serve(16)[1]
    sequences = sum(now.num_sequences for now in stats)
    LESSON.check_numbers(
        claims={
            "20 + 13 = 33 tokens": (20, 13, made["pool"].seq_len("Ada")),
            "three blocks of 16: blocks 0 and 1, and the next free one, block 5": (
                16,
                *made["pool"].block_table("Ada").tolist(),
            ),
            "35 + 20 = 55 tokens": (35, 20, made["pool"].seq_len("Ben")),
            "blocks 2, 3 and 4, and then block 6": tuple(made["pool"].block_table("Ben").tolist()),
            "2 + 3 + 1 + 4 + 1 = 11": (*prompts, sum(prompts)),
            "0 to 15 of them, 7.5 on average": (0, 15, sum(range(16)) / 16),
            "A reservation leaves 94 slots": 128 - sum(now.num_tokens for now in stats) / sequences,
            "blocks of 16 tokens leave 7": (16, sum(now.num_empty_slots for now in stats) / sequences),
            "The 256 slots that have just served 5 requests at once would hold 2 reservations": (
                stats[0].num_blocks * 16,
                max(now.num_sequences for now in stats),
                256 // 128,
            ),
        },
        given=[
            "Ada's answer reaches 13 tokens, Ben's reaches 20",
            "The pool has 16 blocks of 16 tokens",
            "divided by 16, rounded up",
            "that is 128 tokens",
            "with blocks of 16, how many slots",
            "A takes block 8",
            "Why not block 2,",
            "128: one block for each request",
            "Block 2 is B's from the start",
            "Block 8 was the first free one",
            "blocks have 16 tokens by default",
        ],
    )


def test_all_requests_are_served_and_never_more_than_fits():
    made = LESSON.run()
    for block_size in (1, 2, 8, 16, 128):
        history, stats = made["serve"](block_size, num_slots=1024)
        assert set(history.sequences) == set(made["requests"])
        assert sum(now.num_tokens for now in stats) == sum(
            prompt + done for _, prompt, answer in made["requests"].values() for done in range(answer + 1)
        )


def test_answers():
    made = LESSON.run()
    history = made["serve"](16)[0]
    steps = history.steps
    assert steps[12][8] == "", "block 8 is free when A needs one"
    assert next(block for block in range(16) if steps[12][block] == "") == 8, "and the first one"
    assert steps[13][8] == "A"
    assert all(step[2] == "B" for step in steps[:31]), "block 2 is B's"
    # Blocks as long as the reservation: one for each request.
    history, stats = made["serve"](128, num_slots=1024)
    assert all(now.num_used_blocks == now.num_sequences for now in stats)
    with pytest.raises(pn.OutOfBlocksError):
        made["serve"](16, num_slots=224)
