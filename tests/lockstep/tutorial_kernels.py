"""Kernels in the style of public CUDA tutorials, and the mistakes that beginners make in them."""

import math

from numba import complex128, cuda, float32, float64, int32, uint32

TILE = 32
PADDED = TILE + 1
ROWS = 8
SIDE = 16
THREADS = 128
RADIUS = 3
NEAR = THREADS + 2 * RADIUS
WARPS = THREADS // 32
BINS = 64


@cuda.jit
def vector_add(a, b, c):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def saxpy(alpha, x, y):
    start = cuda.grid(1)
    for i in range(start, x.size, cuda.gridsize(1)):
        y[i] = alpha * x[i] + y[i]


@cuda.jit
def copy_with_stride(source, target, stride, offset):
    i = cuda.grid(1)
    target[i] = source[i * stride + offset]


@cuda.jit
def matmul_naive(a, b, c):
    col, row = cuda.grid(2)
    total = float32(0)
    for k in range(a.shape[1]):
        total += a[row, k] * b[k, col]
    c[row, col] = total


@cuda.jit
def matmul_tiled(a, b, c):
    tile_a = cuda.shared.array((SIDE, SIDE), float32)
    tile_b = cuda.shared.array((SIDE, SIDE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    col, row = cuda.grid(2)
    total = float32(0)
    for first in range(0, a.shape[1], SIDE):
        tile_a[y, x] = a[row, first + x]
        tile_b[y, x] = b[first + y, col]
        cuda.syncthreads()
        for k in range(SIDE):
            total += tile_a[y, k] * tile_b[k, x]
        cuda.syncthreads()
    c[row, col] = total


@cuda.jit
def matmul_without_second_barrier(a, b, c):
    tile_a = cuda.shared.array((SIDE, SIDE), float32)
    tile_b = cuda.shared.array((SIDE, SIDE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    col, row = cuda.grid(2)
    total = float32(0)
    for first in range(0, a.shape[1], SIDE):
        tile_a[y, x] = a[row, first + x]
        tile_b[y, x] = b[first + y, col]
        cuda.syncthreads()
        for k in range(SIDE):
            total += tile_a[y, k] * tile_b[k, x]
    c[row, col] = total


@cuda.jit
def transpose_naive(source, target):
    col, row = cuda.grid(2)
    target[col, row] = source[row, col]


@cuda.jit
def transpose_tiled(source, target):
    tile = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    left, top = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
    for j in range(0, TILE, ROWS):
        tile[y + j, x] = source[top + y + j, left + x]
    cuda.syncthreads()
    for j in range(0, TILE, ROWS):
        target[left + y + j, top + x] = tile[x, y + j]


@cuda.jit
def transpose_padded(source, target):
    tile = cuda.shared.array((TILE, PADDED), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    left, top = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
    for j in range(0, TILE, ROWS):
        tile[y + j, x] = source[top + y + j, left + x]
    cuda.syncthreads()
    for j in range(0, TILE, ROWS):
        target[left + y + j, top + x] = tile[x, y + j]


@cuda.jit
def transpose_without_barrier(source, target):
    tile = cuda.shared.array((TILE, PADDED), float32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    left, top = cuda.blockIdx.x * TILE, cuda.blockIdx.y * TILE
    for j in range(0, TILE, ROWS):
        tile[y + j, x] = source[top + y + j, left + x]
    for j in range(0, TILE, ROWS):
        target[left + y + j, top + x] = tile[x, y + j]


@cuda.jit
def histogram_global(data, counts):
    i = cuda.grid(1)
    if i < data.size:
        cuda.atomic.add(counts, data[i], 1)


@cuda.jit
def histogram_shared(data, counts):
    local = cuda.shared.array(BINS, int32)
    thread = cuda.threadIdx.x
    if thread < BINS:
        local[thread] = 0
    cuda.syncthreads()
    i = cuda.grid(1)
    if i < data.size:
        cuda.atomic.add(local, data[i], 1)
    cuda.syncthreads()
    if thread < BINS:
        cuda.atomic.add(counts, thread, local[thread])


@cuda.jit
def histogram_without_atomics(data, counts):
    i = cuda.grid(1)
    if i < data.size:
        counts[data[i]] += 1


@cuda.jit
def inclusive_scan(data, out):
    buffers = cuda.shared.array((2, THREADS), int32)
    thread = cuda.threadIdx.x
    here = 0
    buffers[here, thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        there = 1 - here
        if thread >= step:
            buffers[there, thread] = buffers[here, thread] + buffers[here, thread - step]
        else:
            buffers[there, thread] = buffers[here, thread]
        cuda.syncthreads()
        here = there
        step *= 2
    out[cuda.grid(1)] = buffers[here, thread]


@cuda.jit
def inclusive_scan_in_one_buffer(data, out):
    buffer = cuda.shared.array(THREADS, int32)
    thread = cuda.threadIdx.x
    buffer[thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        if thread >= step:
            buffer[thread] = buffer[thread] + buffer[thread - step]
        cuda.syncthreads()
        step *= 2
    out[cuda.grid(1)] = buffer[thread]


@cuda.jit
def reduce_interleaved(data, out):
    partial = cuda.shared.array(THREADS, float32)
    thread = cuda.threadIdx.x
    partial[thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    step = 1
    while step < THREADS:
        if thread % (2 * step) == 0:
            partial[thread] += partial[thread + step]
        cuda.syncthreads()
        step *= 2
    if thread == 0:
        out[cuda.blockIdx.x] = partial[0]


@cuda.jit
def reduce_sequential(data, out):
    partial = cuda.shared.array(THREADS, float32)
    thread = cuda.threadIdx.x
    partial[thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            partial[thread] += partial[thread + step]
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        out[cuda.blockIdx.x] = partial[0]


@cuda.jit
def reduce_without_barrier(data, out):
    partial = cuda.shared.array(THREADS, float32)
    thread = cuda.threadIdx.x
    partial[thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            partial[thread] += partial[thread + step]
        step //= 2
    if thread == 0:
        out[cuda.blockIdx.x] = partial[0]


@cuda.jit
def reduce_last_warp(data, out, careful):
    partial = cuda.shared.array(64, float32)
    thread = cuda.threadIdx.x
    partial[thread] = data[cuda.grid(1)]
    cuda.syncthreads()
    if thread < 32:
        step = 32
        while step > 0:
            value = partial[thread + step] if thread < step else float32(0)
            if careful:
                cuda.syncwarp()
            if thread < step:
                partial[thread] += value
            if careful:
                cuda.syncwarp()
            step //= 2
        if thread == 0:
            out[cuda.blockIdx.x] = partial[0]


@cuda.jit
def reduce_by_shuffles(data, out):
    warps = cuda.shared.array(WARPS, float32)
    thread = cuda.threadIdx.x
    value = data[cuda.grid(1)]
    step = 16
    while step > 0:
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, step)
        step //= 2
    if thread % 32 == 0:
        warps[thread // 32] = value
    cuda.syncthreads()
    if thread == 0:
        total = float32(0)
        for warp in range(THREADS // 32):
            total += warps[warp]
        out[cuda.blockIdx.x] = total


@cuda.jit
def stencil(data, out):
    near = cuda.shared.array(NEAR, float32)
    thread, i = cuda.threadIdx.x, cuda.grid(1)
    near[thread + RADIUS] = data[i]
    if thread < RADIUS:
        near[thread] = data[i - RADIUS] if i >= RADIUS else float32(0)
        last = i + THREADS
        near[thread + RADIUS + THREADS] = data[last] if last < data.size else float32(0)
    cuda.syncthreads()
    total = float32(0)
    for j in range(2 * RADIUS + 1):
        total += near[thread + j]
    out[i] = total


@cuda.jit
def stencil_without_barrier(data, out):
    near = cuda.shared.array(NEAR, float32)
    thread, i = cuda.threadIdx.x, cuda.grid(1)
    near[thread + RADIUS] = data[i]
    if thread < RADIUS:
        near[thread] = data[i - RADIUS] if i >= RADIUS else float32(0)
        last = i + THREADS
        near[thread + RADIUS + THREADS] = data[last] if last < data.size else float32(0)
    total = float32(0)
    for j in range(2 * RADIUS + 1):
        total += near[thread + j]
    out[i] = total


@cuda.jit(device=True)
def xorshift(state):
    state = uint32(state ^ uint32(state << 13))
    state = uint32(state ^ uint32(state >> 17))
    return uint32(state ^ uint32(state << 5))


@cuda.jit
def monte_carlo_pi(hits, draws):
    state = uint32(cuda.grid(1) + 1)
    inside = 0
    for _ in range(draws):
        state = xorshift(state)
        x = float32(state) * float32(2**-32)
        state = xorshift(state)
        y = float32(state) * float32(2**-32)
        if x * x + y * y < float32(1):
            inside += 1
    cuda.atomic.add(hits, 0, inside)


@cuda.jit
def bitonic_step(data, distance, run):
    i = cuda.grid(1)
    partner = i ^ distance
    if partner > i:
        ascending = i & run == 0
        if (data[i] > data[partner]) == ascending:
            data[i], data[partner] = data[partner], data[i]


@cuda.jit
def dot(a, b, out):
    partial = cuda.shared.array(THREADS, float32)
    thread, i = cuda.threadIdx.x, cuda.grid(1)
    partial[thread] = a[i] * b[i]
    cuda.syncthreads()
    step = THREADS // 2
    while step > 0:
        if thread < step:
            partial[thread] += partial[thread + step]
        cuda.syncthreads()
        step //= 2
    if thread == 0:
        cuda.atomic.add(out, 0, partial[0])


@cuda.jit
def black_scholes_like(price, out):
    i = cuda.grid(1)
    d = math.log(price[i]) / math.sqrt(price[i])
    out[i] = float32(0.5) * math.erf(d) + float32(0.5)


@cuda.jit
def particles(positions, out):
    i = cuda.grid(1)
    x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
    out[i] = x * x + y * y + z * z


@cuda.jit
def shared_with_stride(stride, out):
    tile = cuda.shared.array(1024, float32)
    thread = cuda.threadIdx.x
    for j in range(thread, 1024, cuda.blockDim.x):
        tile[j] = j
    cuda.syncthreads()
    out[thread] = tile[thread * stride]


@cuda.jit
def shared_doubles(stride, out):
    tile = cuda.shared.array(512, float64)
    thread = cuda.threadIdx.x
    for j in range(thread, 512, cuda.blockDim.x):
        tile[j] = j
    cuda.syncthreads()
    out[thread] = tile[thread * stride]


@cuda.jit
def shared_complex(stride, out):
    tile = cuda.shared.array(512, complex128)
    thread = cuda.threadIdx.x
    for j in range(thread, 512, cuda.blockDim.x):
        tile[j] = j
    cuda.syncthreads()
    out[thread] = tile[thread * stride]
