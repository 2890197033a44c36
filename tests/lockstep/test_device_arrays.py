"""Device arrays of the facade have the methods, the attributes and the errors of Numba's device arrays."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from paged_numba.errors import UnsupportedConstructError
from paged_numba.lockstep.cuda import facade as cuda

DTYPES = st.sampled_from([np.dtype(name) for name in "float32 int16 uint8 complex64 bool".split()])


class Foreign:
    """An array of another library, which exposes only the CUDA array interface."""

    def __init__(self, array, **changes):
        self.array = array
        self.changes = changes

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__cuda_array_interface__, **self.changes}


@st.composite
def arrays(draw):
    """Arrays of up to 3 axes, in C or Fortran order."""
    shape = draw(st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    array = draw(st_numpy.arrays(draw(DTYPES), shape))
    return np.asfortranarray(array) if draw(st.booleans()) else array


@given(array=arrays(), data=st.data())
def test_device_arrays_agree_with_numpy(array, data):
    device = cuda.to_device(array)
    host = device.copy_to_host()
    np.testing.assert_array_equal(host, array)
    assert host.strides == array.strides
    assert host.flags.writeable
    assert (device.shape, device.strides, device.dtype) == (array.shape, array.strides, array.dtype)
    assert (device.size, device.ndim, device.nbytes) == (array.size, array.ndim, array.nbytes)
    assert device.alloc_size == array.nbytes
    flags = {name: array.flags[name] for name in ("C_CONTIGUOUS", "F_CONTIGUOUS")}
    assert device.flags == flags
    assert (device.is_c_contiguous(), device.is_f_contiguous()) == tuple(flags.values())
    assert cuda.as_cuda_array(Foreign(device)).strides == (device.strides if array.size else array.strides)
    np.testing.assert_array_equal(cuda.as_cuda_array(Foreign(device)).copy_to_host(), array)
    if array.ndim:
        index = data.draw(st_numpy.basic_indices(array.shape))
        part = device[index]
        found = (
            part.copy_to_host()
            if isinstance(part, cuda.DeviceArray) and min(part.strides, default=0) >= 0
            else None
        )
        if found is not None:
            np.testing.assert_array_equal(found, array[index])
        if not isinstance(part, cuda.DeviceArray):
            assert part.tobytes() == np.asarray(array[index]).tobytes()
        assert len(device) == len(array)


def test_views_share_memory_and_copies_do_not():
    device = cuda.to_device(np.arange(6.0))
    twins = [device.reshape(2, 3), device.ravel(), device.view(np.int64), device[1:], device.bind(5)]
    twins += [
        device.squeeze(),
        cuda.as_cuda_array(device),
        cuda.as_cuda_array(Foreign(device)),
        *device.split(4),
    ]
    assert all(np.may_share_memory(twin.__lockstep_array__, device.__lockstep_array__) for twin in twins)
    assert [part.size for part in device.split(4)] == [4, 2]
    matrix = device.reshape(2, 3)
    flipped = matrix.T
    assert flipped.is_c_contiguous()  # Numba copies
    matrix[0, 1] = 9
    assert flipped[1, 0] == 1
    assert matrix.transpose((0, 1)) is matrix
    assert cuda.to_device(device) is device


def test_items_are_assigned_as_numpy_does():
    host = np.arange(12.0).reshape(3, 4)
    device = cuda.to_device(host)
    for index, value in [
        ((1, 2), 7),
        (0, np.arange(4.0)),
        ((slice(None), 1), 3.5),
        (2, cuda.to_device(np.ones(1))),
    ]:
        device[index] = value
        host[index] = getattr(value, "__lockstep_array__", value)
        device.setitem(index, value, stream=cuda.stream())
    np.testing.assert_array_equal(device.copy_to_host(), host)
    assert device.getitem((1, 2)) == 7
    with pytest.raises(ValueError, match="at most 1 axes"):
        device[0] = np.ones((1, 4))
    with pytest.raises(ValueError, match="broadcast"):
        device[0] = np.ones(3)


def test_records_are_read_and_written_by_field():
    dtype = np.dtype([("a", np.int32), ("b", np.float64, 2)])
    device = cuda.to_device(np.zeros(3, dtype))
    record = device[1]
    record["a"] = 5
    record["b"] = [1, 2]
    assert device.copy_to_host()[1]["a"] == 5
    assert record["a"] == 5
    np.testing.assert_array_equal(record["b"].copy_to_host(), [1, 2])
    assert cuda.to_device(np.zeros(1, dtype)[0])["a"] == 0


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (NotImplementedError, "negative strides", lambda d: d[::-1].copy_to_host()),
        (NotImplementedError, "requires copying", lambda d: d.reshape(2, 3)[:, :2].ravel()),
        (NotImplementedError, "non-2D", lambda d: d.reshape(1, 2, 3).T),
        (ValueError, "contiguous", lambda d: cuda.to_device(np.ones(8)[::2])),
        (ValueError, "contiguous", lambda d: d.reshape(2, 3)[:, :2].copy_to_device(np.ones((2, 2)))),
        (ValueError, "C-contiguous", lambda d: d[::2].view(np.int32)),
        (ValueError, "1 axis", lambda d: d.reshape(2, 3).split(2)),
        (ValueError, "contiguous", lambda d: d[::2].split(2)),
        (ValueError, "strides", lambda d: d.reshape(2, 3).copy_to_host(np.empty((2, 3), order="F"))),
        (TypeError, "dtype", lambda d: d.copy_to_host(np.empty(6, np.float32))),
        (TypeError, "dtype", lambda d: d.copy_to_device(np.empty(6, np.float32))),
        (TypeError, "pickled", pickle.dumps),
        (TypeError, "pickled", copy.deepcopy),
        (TypeError, "index", lambda d: d[[0, 1]]),
        (ValueError, "copy", lambda d: d.__array__(copy=False)),
        (UnsupportedConstructError, "ipc", lambda d: d.get_ipc_handle()),
        (NotImplementedError, "Masked", lambda d: cuda.as_cuda_array(Foreign(d, mask=d))),
        (ValueError, "lockstep machine", lambda d: cuda.as_cuda_array(Foreign(d, data=(8, False)))),
        (ValueError, "in its memory", lambda d: cuda.as_cuda_array(Foreign(d, shape=(7,)))),
        (TypeError, "CUDA array interface", lambda d: cuda.as_cuda_array(Foreign(d, shape="x"))),
    ],
)
def test_errors_have_numbas_types(error, match, call):
    device = cuda.to_device(np.arange(6.0))
    with pytest.raises(error, match=match):
        call(device)
    np.testing.assert_array_equal(device.copy_to_host(), np.arange(6.0))


def test_addresses_of_memory_that_is_gone_are_refused():
    device = cuda.to_device(np.arange(6.0))
    foreign = Foreign(device)
    described = foreign.__cuda_array_interface__
    del device, foreign
    with pytest.raises(ValueError, match="lockstep machine"):
        cuda.from_cuda_array_interface(described)


def test_streams_are_kept():
    stream = cuda.stream()
    device = cuda.to_device(np.ones(3), stream=stream)
    assert device.stream is stream
    assert device[1:].stream is stream
    assert cuda.as_cuda_array(Foreign(device)).stream.handle == stream.handle
    assert cuda.external_stream(7).handle == 7
    called = []
    stream.add_callback(lambda *given: called.append(given), "x")
    assert called == [(stream, 0, "x")]


@pytest.mark.parametrize("make", [cuda.pinned_array, cuda.mapped_array, cuda.managed_array])
def test_host_memory_has_orders_and_strides(make):
    assert make((2, 3), np.int16, order="F").flags.f_contiguous
    assert make(3, np.int16, strides=4).strides == (4,)
    made = make((2, 3))
    assert isinstance(made, np.ndarray)
    made[:] = 1

    @cuda.jit
    def double(x):
        i, j = cuda.grid(2)
        if i < x.shape[0] and j < x.shape[1]:
            x[i, j] *= 2

    double[1, (2, 3)](made)
    assert (made == 2).all()
    assert cuda.is_cuda_array(made) == (make is not cuda.pinned_array)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_arrays_like_others_have_their_order_of_axes(axes):
    like = np.zeros((2, 3, 4), np.float32).transpose(axes)
    for made in (cuda.device_array_like(like), cuda.pinned_array_like(like), cuda.mapped_array_like(like)):
        assert (made.shape, made.strides) == (like.shape, like.strides)
    sliced = cuda.device_array_like(like[:, ::2])
    assert sliced.alloc_size == sliced.nbytes


@cuda.jit
def add_one(x):
    i = cuda.grid(1)
    if i < x.size:
        x[i] += 1


def test_marked_arguments_are_copied_as_on_the_way_to_a_gpu():
    for mark, seen in ((cuda.In, 5), (cuda.InOut, 6)):
        x = np.full(3, 5.0)
        add_one[1, 4](mark(x))
        assert (x == seen).all()
    x = np.full(3, 5.0)
    add_one[1, 4](cuda.Out(x))
    assert np.isnan(x).all()  # the kernel read memory that nothing was copied to


def test_captured_device_arrays_are_used_in_place():
    total = cuda.to_device(np.zeros(1))
    foreign = Foreign(total)

    @cuda.jit
    def count():
        cuda.atomic.add(total, 0, 1)
        cuda.atomic.add(foreign, 0, 1)

    count[2, 4]()
    count[1, 1]()
    assert total[0] == 18
