"""Kernels with statements of every kind, parts of which no thread runs; `WHO` says whose ``cuda`` they use."""

# Statements of every kind, the odd ones too.
# ruff: noqa: B007, B905, E701, F842, PIE790, PIE808

import os

if os.environ["WHO"] == "lockstep":
    from paged_numba.lockstep.cuda import facade as cuda
else:
    from one_by_one import cuda


@cuda.jit(device=True)
def clipped(value, low):
    """Device function."""
    if value < low:
        return low
    if value > 100:
        return 100
    return value


@cuda.jit(
    device=True,
    inline=True,
)
def never(value):
    value += 1
    return value


@cuda.jit
def branches(x, out):
    i = cuda.grid(1)
    if i >= x.shape[0]:
        return
    value = x[i]
    if value > 50:
        out[i] = 1
    elif value > 1000:
        out[i] = 2
        value = never(value)
    elif value > 40:
        out[i] = 3
    else:
        out[i] = clipped(value, 7)
        if value < 0:
            out[i] = 4
        else:
            if value < 2: out[i] = 5  # fmt: skip
            pass
    if value < -1:
        out[i] = 9
    elif i == 3 and (value > 0):
        out[i] += value


@cuda.jit
def loops(x, out):
    i = cuda.grid(1)
    total = 0
    for j in range(x.shape[0]):
        total += x[j]
        other = total
    for j in range(0, i % 3):
        total += x[j]
    for j in range(0):
        total = 7
        out[i] = total
    for item in x[:3]:
        if item < i:
            continue
            total = 5
        total += item
    while total > 100:
        total -= 50
        if total < 0:
            break
        if total == 12345:
            total = 1
            continue
    else:
        total += 1
    while total < -5:
        total += 1
    for j in range(5):
        if j == i:
            break
    else:
        total += 3
    for j in range(3):
        if j == 2:
            break
    else:
        total = 99
    out[i] = total + other


@cuda.jit
def leaving(x, out):
    i = cuda.grid(1)
    for j in range(4):
        if j == 1:
            if i < 100:
                return
            out[i] = 3
        out[i] = 2
    out[i] = 1
    while True:
        out[i] = 7


@cuda.jit
def nested(x, out):
    i = cuda.grid(1)
    a, b = 1, 2
    a: int = 3
    c: int
    ...
    if i < 4:
        if x[i] > 1000:
            a = b
            if x[i] > 2000:
                out[i] = a
            else:
                out[i] = b
        elif i > 2:
            b = a
            if b > 5:
                a = 1
        else:
            pass
    assert a < 1000, "small"
    out[i] = a if i < 2 else (b)
    if i > 1000:
        raise ValueError("never")


@cuda.jit
def inside(x, out):
    i = cuda.grid(1)

    def half(value):
        if value > 1000:
            return 0
        return value // 2

    if i > 1000:

        def twice(value):
            return 2 * value

        out[i] = twice(3)
    add = lambda a, b: a + b  # noqa: E731
    total = 0
    for one, other in zip((1, 2), (3, 4)):
        total += add(one, other)
    for part in (x[0], half(x[i])):
        if part == 12345:
            total = 0
        elif part == 3: continue  # fmt: skip
        total += part
    match i % 3:
        case 0:
            total += 1
        case 1 | 5:
            total += 2
        case 7:
            total += 3
        case _:
            total += 4
    while True:
        total += 1
        if total % 7 == 0: break  # fmt: skip
    out[i] = total


KERNELS = [branches, loops, leaving, nested, inside]
