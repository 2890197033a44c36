"""Kernels with one mistake each, beside twins without it: what a sanitizer must tell apart."""

import numpy as np
from numba import cuda, float32, int32, uint32, uint64

PADDED = np.dtype([("n", np.int8), ("x", np.float32)], align=True)
"""A record with three bytes of padding."""


@cuda.jit
def random_accesses(kinds, elements, barriers, shared, out):
    tile = cuda.shared.array(8, int32)
    thread, i = cuda.threadIdx.x, cuda.grid(1)
    if thread == 0:
        for place in range(8):
            tile[place] = -1
    cuda.syncthreads()
    value = int32(0)
    for step in range(kinds.shape[0]):
        element = elements[step, i]
        if kinds[step, i] == 1:
            if shared:
                value = tile[element]
            else:
                value = out[element]
        elif kinds[step, i] == 2:
            if shared:
                tile[element] = i
            else:
                out[element] = i
        if barriers[step]:
            cuda.syncthreads()
    if value == -7:
        out[0] = value


@cuda.jit
def all_set_a_flag(flag, value):
    flag[0] = value[cuda.grid(1)]


@cuda.jit
def read_then_write_at_once(x, atomic):
    i = cuda.grid(1)
    if i == 0:
        if atomic:
            cuda.atomic.exch(x, 0, 1)
        else:
            x[0] = 1
    elif i == 40:
        cuda.atomic.add(x, 0, 1)


@cuda.jit
def neighbours_across_blocks(x, out, barrier):
    i = cuda.grid(1)
    x[i] = i
    if barrier:
        cuda.cg.this_grid().sync()
    out[i] = x[(i + 1) % x.size]


@cuda.jit
def exchange_by_shuffle_only(out):
    tile = cuda.shared.array(32, int32)
    thread = cuda.threadIdx.x
    tile[thread] = thread
    cuda.shfl_sync(0xFFFFFFFF, thread, 0)
    out[thread] = tile[31 - thread]


@cuda.jit
def divergent_barrier(out, limit):
    thread = cuda.threadIdx.x
    if thread < limit:
        cuda.syncthreads()
    out[thread] = thread


@cuda.jit
def divergent_shuffle(out, limit):
    thread = cuda.threadIdx.x
    out[thread] = -1
    if thread < limit:
        out[thread] = cuda.shfl_xor_sync(0xFFFFFFFF, thread, 1)


@cuda.jit
def sum_shared(out, filled):
    tile = cuda.shared.array(32, float32)
    thread = cuda.threadIdx.x
    if thread < filled:
        tile[thread] = 1
    cuda.syncthreads()
    if thread == 0:
        total = float32(0)
        for i in range(32):
            total += tile[i]
        out[0] = total


@cuda.jit
def sum_local(out, filled):
    mine = cuda.local.array(4, float32)
    for i in range(filled):
        mine[i] = 1
    total = float32(0)
    for i in range(4):
        total += mine[i]
    out[cuda.grid(1)] = total


@cuda.jit
def double(source, out):
    i = cuda.grid(1)
    out[i] = 2 * source[i]


@cuda.jit
def copy(source, out):
    i = cuda.grid(1)
    out[i] = source[i]


@cuda.jit
def record_through_local_memory(out, complete):
    records = cuda.local.array(1, PADDED)
    records[0].n = 1
    if complete:
        records[0].x = 2.0
    record = records[0]
    out[cuda.grid(1)] = record


@cuda.jit
def copy_through_shared(source, out):
    tile = cuda.shared.array(32, float32)
    thread = cuda.threadIdx.x
    tile[thread] = source[thread]
    out[thread] = tile[thread]


@cuda.jit
def shift(source, out, by):
    i = cuda.grid(1)
    out[i] = source[i + by]


@cuda.jit
def scatter(out, by):
    i = cuda.grid(1)
    out[i + by] = 1


@cuda.jit
def count_at(out, by):
    i = cuda.grid(1)
    cuda.atomic.add(out, i + by, 1)


@cuda.jit
def row_of(source, out, row):
    i = cuda.grid(1)
    line = source[row]
    out[i] = line[i]


@cuda.jit
def narrow_index(source, out, stride):
    i = cuda.grid(1)
    place = int32(i * stride)
    out[i] = source[place]


@cuda.jit
def narrow_hash(source, out, stride):
    i = cuda.grid(1)
    place = uint32(i * stride)
    out[i] = source[place % source.size]


@cuda.jit
def narrow_value(out, stride):
    i = cuda.grid(1)
    out[i] = int32(i * stride) + 0.5


@cuda.jit
def exchange_with_syncwarp(out, distance):
    tile = cuda.shared.array(64, int32)
    thread = cuda.threadIdx.x
    tile[thread] = thread
    cuda.syncwarp()
    out[thread] = tile[thread ^ distance]


@cuda.jit
def own_records(records):
    i = cuda.grid(1)
    record = records[i]
    record.x += 1
    record.n = i
    records[i]["y"] = record.x


@cuda.jit
def copy_on_one_line(source, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = source[i]


@cuda.jit
def count_from_exchanged(out):
    count = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        cuda.atomic.exch(count, 0, 0)
    cuda.syncthreads()
    cuda.atomic.add(count, 0, 1)
    cuda.syncthreads()
    out[cuda.threadIdx.x] = count[0]


@cuda.jit
def halves_synchronise_apart(out, across):
    tile = cuda.shared.array(32, int32)
    thread = cuda.threadIdx.x
    tile[thread] = thread
    if thread < 16:
        cuda.syncwarp(0xFFFF)
    else:
        cuda.syncwarp(0xFFFF0000)
    out[thread] = tile[thread ^ across]


@cuda.jit
def parts_synchronise_after_all(out):
    tile = cuda.shared.array(32, int32)
    thread = cuda.threadIdx.x
    tile[thread] = thread
    cuda.syncwarp()
    if thread < 16:
        cuda.syncwarp(0xFFFF)
    out[thread] = tile[31 - thread]


@cuda.jit
def previous(source, out, place):
    i = cuda.grid(1)
    out[i] = source[place[i] - uint64(1)]


@cuda.jit
def gather(source, index, out):
    i = cuda.grid(1)
    out[i] = source[index[i]]


@cuda.jit
def match_in_a_branch(out, limit):
    thread = cuda.threadIdx.x
    if thread < limit:
        mask, same = cuda.match_all_sync(0xFFFFFFFF, 1)
        out[thread] = mask if same else 0


@cuda.jit
def copy_far_then_store(source, a, b, c, by):
    i = cuda.grid(1)
    a[i + by] = source[i]
    b[i] = 1.0
    c[i] = b[i] + 1


@cuda.jit
def first_of_row(a, by):
    i = cuda.grid(1)
    row = a[i + by]
    row[0] = i


@cuda.jit
def before_in_last_axis(a, out):
    i = cuda.grid(1)
    row = a[..., i - 1]
    out[i] = row[0]


LAST = -1


@cuda.jit
def last_elements(source, out):
    out[0] = source[-1, -1]
    out[LAST - LAST + 1] = source[LAST][-2]
    out[-2] = source[..., -1][1]
    cuda.atomic.add(out, -1, source[(0, LAST)])


@cuda.jit
def last_by_computation(source, out):
    out[0] = source[0, cuda.threadIdx.x - 1]


@cuda.jit
def beyond_the_start(source, out):
    out[0] = source[-4, 0]


@cuda.jit
def shift_in_place(x, by):
    i = cuda.grid(1)
    if i + by < x.size:
        x[i] = x[i + by] + 1


@cuda.jit
def all_write_one(out):
    out[0] = cuda.threadIdx.x + 2 * cuda.threadIdx.y + 4 * cuda.blockIdx.z
