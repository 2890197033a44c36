"""Arrays as kernels see them: global, shared, local and constant memory, with every index checked."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from ...errors import KernelError, KernelIndexError, UnsupportedConstructError
from . import masks
from .arithmetic import LaneTuple, convert
from .lanes import Lanes, source_line
from .masks import Mask
from .strides import broadcast_strides, field_of, flattened, items_of, slice_bounds, within_bounds

_INTEGERS = frozenset((np.int64, np.int32, np.uint64, np.uint32))
"""The common types of scalar indices."""

_MOST_ORIGINS = 4
"""Most positions that an array caches."""

_LARGEST = np.uint64(2**63 - 1)

_VIEWS = frozenset((slice, type(Ellipsis), type(None), LaneTuple))
"""Types of indices that need more than one element's position."""


class LaneArray:
    """An array, or a view of an array; the position of a view may differ by lane.

    Element ``[i, j]`` lies at ``buffer[offset + i * strides[0] + j * strides[1]]``.

    Parameters
    ----------
    machine : Lanes
        Names the lanes when an index is out of bounds.
    name : str
        The array's name in errors, as in the kernel.
    buffer : ndarray
        1-D; all memory that any lane can reach through this array.
    offset : int or int64 array
        Position of the first element; by lane if it differs.
    shape, strides : tuple of int
        In elements; a length that differs by lane is an int64 array.
    lead : tuple
        Indices that earlier partial indexing has consumed; None once a slice has moved the origin.

    Attributes
    ----------
    lengths : tuple
        The parameter `shape`.
    is_integral : bool
        Whether the elements are integers.
    is_vector : bool
        Whether the array has a single axis, whose length is the same in all lanes, and no fields.
    origins : dict
        Cached positions by the ids of the indices, which are kept alive, and the lanes for which they hold: loops
        repeat the same indices.
    """

    __slots__ = tuple(
        "buffer dtype is_integral is_vector lead lengths machine name offset origins strides".split()
    )

    def __init__(
        self,
        machine: Lanes,
        name: str,
        buffer: Any,
        offset: Any,
        shape: tuple[Any, ...],
        strides: tuple[int, ...],
        lead: tuple[Any, ...] | None = (),
    ) -> None:
        self.machine = machine
        self.name = name
        self.buffer = buffer
        self.dtype = buffer.dtype
        self.offset = offset
        self.lengths = shape
        self.strides = strides
        self.lead = lead
        self.is_integral = self.dtype.kind in "iu"
        self.is_vector = len(shape) == 1 and type(shape[0]) is int and self.dtype.names is None
        self.origins: dict[tuple[int, ...], tuple[Any, tuple[Any, ...], Mask]] = {}

    @classmethod
    def of(cls, machine: Lanes, name: str, array: Any) -> LaneArray:
        """Wrap a NumPy array without a copy, whatever its strides."""
        return cls(machine, name, *flattened(array))

    __array_ufunc__ = None  # a number and an array: NumPy leaves the operator to the array
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False if other is None else self._refuse()

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise KernelError(
            f"a variable must hold {items_of(self, 1)}, as {self.name} is, in all threads or in none: "
            f"use two variables, {source_line()}"
        )

    def _refuse(self, *_: Any) -> Any:
        """Refuse an operator on the whole array, for which Numba would have to allocate its result."""
        raise UnsupportedConstructError(
            f"the lockstep machine does not run an operator on the whole array {self.name}: write a loop, "
            f"or a ufunc with an output array, such as np.add(a, b, out), {source_line()}"
        )

    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = astype = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = _refuse
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __rand__ = __ror__ = __rxor__ = _refuse
    __neg__ = __pos__ = __invert__ = __int__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    # Attributes and methods that kernels use.

    @property
    def shape(self) -> tuple[Any, ...]:
        """`lengths` as lane values."""
        return LaneTuple([n if isinstance(n, np.ndarray) else np.int64(n) for n in self.lengths])

    @property
    def ndim(self) -> Any:
        return np.int64(len(self.lengths))

    @property
    def size(self) -> Any:
        return math.prod(self.shape, start=np.int64(1))

    @property
    def itemsize(self) -> Any:
        return np.int64(self.dtype.itemsize)

    @property
    def nbytes(self) -> Any:
        return self.size * self.itemsize

    def like(
        self, offset: Any, shape: tuple[Any, ...], strides: tuple[int, ...], lead: tuple[Any, ...] | None
    ) -> LaneArray:
        """Return another view of the same memory."""
        return LaneArray(self.machine, self.name, self.buffer, offset, shape, strides, lead)

    def over(
        self,
        buffer: Any,
        offset: Any,
        shape: tuple[Any, ...],
        strides: tuple[int, ...],
        lead: tuple[Any, ...] | None = None,
    ) -> LaneArray:
        """Return a view through another buffer of the same memory, such as one field or the real parts."""
        return LaneArray(self.machine, self.name, buffer, offset, shape, strides, lead)

    def field(self, name: str) -> LaneArray:
        """Return the view of one field of a record array; a field that is an array adds its axes."""
        buffer, offset, strides, axes = field_of(self.buffer, name, self.offset, self.strides)
        return self.over(buffer, offset, (*self.lengths, *axes), strides, self.lead)

    # Access.

    def address(self, mask: Mask, index: tuple[Any, ...]) -> Any:
        """Return the position in `buffer` of the element that each lane accesses.

        Parameters
        ----------
        mask : bool or bool array
            Active lanes. Inactive lanes get a position inside the buffer, whatever their index.
        index : tuple of integer values
            One index for each axis, in ``-n .. n - 1``; negative ones count from the end, as in Numba.

        Raises
        ------
        KernelIndexError
            If the index of an active lane is out of bounds, or not an integer.
        """
        if not self.buffer.size:
            self._out_of_bounds(mask, index, True)
            return 0  # reached only if errors are collected
        fixed = 0
        ids = []
        uniform = True
        for i, n, stride in zip(index, self.lengths, self.strides):  # noqa: B905 (each load comes here)
            kind = type(i)
            if kind is np.ndarray or type(n) is np.ndarray:
                ids.append(id(i))
                uniform = False
                continue
            ids.append(0)
            if kind not in _INTEGERS and i.dtype.kind not in "iub":
                raise KernelIndexError(f"{self.name} must be indexed with integers, got dtype={i.dtype}")
            position = int(i)
            if not 0 <= position < n:
                position += n
                if not 0 <= position < n:
                    self._out_of_bounds(mask, index, True)
                    position = 0  # reached only if errors are collected
            fixed += position * stride
        if not uniform:
            # Lane values never change in place, so the same objects on the same axes give the same position.
            key = tuple(ids)
            known = self.origins.get(key)
            if known is not None and (known[2] is True or known[2] is mask):
                origin = known[0]
            else:
                origin = self._origin(mask, index, key)
        else:
            origin = self.offset
        if not fixed:
            return origin
        # NumPy adds an array without dimensions in half the time of an int.
        return origin + (fixed if type(origin) is int else np.array(fixed))

    def locate_atomic(self, mask: Mask, index: tuple[Any, ...], exchanges: bool) -> tuple[Any, Mask]:
        """Return the positions that an atomic operation changes, and the lanes that take part in it."""
        return self.address(mask, index), mask

    def _origin(self, mask: Mask, index: tuple[Any, ...], key: tuple[int, ...]) -> Any:
        """Return the position that follows from the indices that differ by lane, with 0 for all others."""
        terms: list[Any] = []
        lanes: Mask = True
        for i, n, stride in zip(index, self.lengths, self.strides, strict=True):
            if isinstance(i, np.ndarray) or isinstance(n, np.ndarray):
                within, checked = self._within(mask, index, i, n)
                lanes = lanes if checked is True or lanes is False else checked
                terms.append(within if stride == 1 else within * stride)
        # Small terms first: a value for each thread block costs less than one for each lane.
        if len(terms) > 1:
            terms.sort(key=np.size)
        offset = self.offset
        for term in terms:
            offset = term + offset if isinstance(offset, np.ndarray) or offset else term
        if lanes is not False:
            if len(self.origins) == _MOST_ORIGINS:
                self.origins.clear()
            self.origins[key] = offset, index, lanes
        return offset

    def _within(self, mask: Mask, index: tuple[Any, ...], i: Any, n: Any) -> tuple[Any, Mask]:
        """Return `i` as int64 in ``0 .. n - 1`` for every lane, and the lanes whose index it is: all, `mask` or none.

        Indices replaced in inactive lanes must be checked again once those lanes are active.
        """
        if i.dtype != np.int64:
            if i.dtype.kind not in "iub":
                raise KernelIndexError(f"{self.name} must be indexed with integers, got dtype={i.dtype}")
            # Numba wraps signed indices only; an unsigned index that underflowed is far out of bounds.
            i = (np.minimum(i, _LARGEST) if i.dtype == np.uint64 else i).astype(np.int64)
        within, lanes, bad = within_bounds(mask, i, n)
        if bad is not None:
            self._out_of_bounds(mask, index, bad)
        return within, lanes

    def load(self, mask: Mask, index: Any) -> Any:
        """Return ``array[index]``: a value, or a view if `index` is partial or has slices."""
        if type(index) is not tuple:
            if self.is_vector and type(index) in _INTEGERS:
                # The usual access of an inner loop.
                position = int(index)
                if 0 <= position < self.lengths[0]:
                    step, origin = position * self.strides[0], self.offset
                    return self.buffer[origin + (step if type(origin) is int else np.array(step))]
            index = (index,)
        if self._selects_view(index) or self.dtype.names is not None:
            return self.load(mask, tuple(index[0])) if _is_tuple(index) else self.view(mask, index)
        return self.buffer[self.address(mask, index)]

    def store(self, mask: Mask, index: Any, value: Any) -> None:
        """``array[index] = value`` in the active lanes; if several lanes store at one address, the last wins."""
        if type(index) is not tuple:
            index = (index,)
        if self._selects_view(index):
            if _is_tuple(index):
                self.store(mask, tuple(index[0]), value)
            else:
                self._fill(mask, self.view(mask, index), value)
            return
        if not self.buffer.flags.writeable:
            raise KernelError(f"{self.name} is read-only, a kernel cannot store into it")
        self._scatter(mask, self.address(mask, index), value)

    def _selects_view(self, index: tuple[Any, ...]) -> bool:
        """Tell whether an index is partial or has slices."""
        if len(index) != len(self.lengths):
            return True
        for i in index:  # noqa: SIM110 (each access comes here, and any() takes twice the time)
            if type(i) in _VIEWS:
                return True
        return False

    def _scatter(self, mask: Mask, position: Any, value: Any) -> None:
        if isinstance(value, LaneArray):
            value = self.record(value)
        elif self.dtype.names is not None:
            raise KernelError(f"{self.name} holds records, not numbers: a number goes to one of their fields")
        # NumPy refuses a single number that does not fit, and leaves floats out of range undefined.
        if (
            self.is_integral
            and value.dtype is not self.dtype
            and (type(value) is not np.ndarray or value.dtype.kind == "f")
        ):
            value = convert(value, self.dtype)
        # The usual shapes first: broadcasting takes longer than the store.
        if type(position) is np.ndarray:
            if mask is True:
                if type(value) is not np.ndarray or value.shape == position.shape:
                    self.buffer[position] = value
                    return
            elif position.shape == self.machine.shape:
                if mask.shape != position.shape:
                    mask = mask & self.machine.everyone
                if type(value) is not np.ndarray:
                    self.buffer[position[mask]] = value
                    return
                if value.shape == mask.shape:
                    self.buffer[position[mask]] = value[mask]
                    return
        shape = np.broadcast_shapes(np.shape(position), np.shape(value), np.shape(mask))
        if not shape:
            self.buffer[position] = value
            return
        if np.shape(position) != shape:
            position = np.broadcast_to(position, shape)
        if mask is not True:
            chosen = np.broadcast_to(mask, shape)
            position = position[chosen]
            value = np.broadcast_to(value, shape)[chosen]
        self.buffer[position] = value

    def record(self, source: LaneArray) -> Any:
        """Return the record that `source` is, as a value that this array can hold.

        Raises
        ------
        KernelError
            `source` is no record, or its type does not begin with the fields of this array.
        """
        if source.lengths or source.dtype.names is None or self.dtype.names is None:
            raise KernelError(
                f"{self.name} takes {items_of(self)}, not {source.name}, which is {items_of(source, 1)}"
            )
        value = source.buffer[source.offset]
        if self.dtype == source.dtype:
            return value
        # As Numba, which lets a record stand for one with the first of its fields.
        given, wanted = (list(array.dtype.fields.items()) for array in (source, self))
        if given[: len(wanted)] != wanted:
            raise KernelError(f"{self.name} holds records of {self.dtype}, not of {source.dtype}")
        return value[list(self.dtype.names)]

    def _fill(self, mask: Mask, target: LaneArray, value: Any) -> None:
        """Store a number, or an array that broadcasts to a view, into every element of the view."""
        copied = isinstance(value, LaneArray)
        if copied:
            value = value.broadcast(mask, target)
        places = []
        for place in np.ndindex(*(masks.most(mask, n) for n in target.lengths)):
            where = tuple(np.int64(i) for i in place)
            inside = mask
            for i, n in zip(where, target.lengths, strict=True):
                if isinstance(n, np.ndarray):
                    inside = masks.narrow(inside, i < n)
            if inside is not False:
                places.append((inside, where))
        # Numba copies an array that may overlap the view before it stores.
        loaded = [value.load(inside, where) for inside, where in places] if copied else None
        for number, (inside, where) in enumerate(places):
            target.store(inside, where, value if loaded is None else loaded[number])

    def broadcast(self, mask: Mask, target: LaneArray) -> LaneArray:
        """Return a view of this array with the shape of `target`."""
        strides = broadcast_strides(mask, self.lengths, self.strides, target.lengths)
        if strides is None:
            raise KernelError(
                f"{self.name} must have the shape of the part of {target.name} that it is stored in"
            )
        return self.like(self.offset, target.lengths, strides, None)

    def view(self, mask: Mask, index: tuple[Any, ...]) -> LaneArray:
        """Return the view that a partial index or slices select; integers may differ by lane."""
        at = next((place for place, i in enumerate(index) if i is Ellipsis), None)
        if at is not None:
            fill = len(self.lengths) - sum(i is not None for i in index) + 1
            index = index[:at] + (slice(None),) * fill + index[at + 1 :]
        rest = sum(i is not None for i in index)
        if rest > len(self.lengths):
            raise KernelIndexError(
                f"{self.name} must be indexed with at most {len(self.lengths)} indices, got {rest}"
            )
        offset, shape, strides, lead = self.offset, [], [], self.lead
        axes = zip(self.lengths, self.strides, strict=True)
        for i in index:
            if i is None:  # a new axis
                shape.append(1)
                strides.append(0)
                lead = None
                continue
            n, stride = next(axes)
            if type(i) is slice:
                start, length, step = slice_bounds(i, n)
                offset = offset + start * stride
                shape.append(length)
                strides.append(stride * step)
                lead = None
            else:
                if not isinstance(i, np.ndarray) and not isinstance(n, np.ndarray):
                    i = int(i)
                    if not -n <= i < n:
                        self._out_of_bounds(mask, index, True)
                        i = 0
                    offset = offset + (i + n if i < 0 else i) * stride
                else:
                    offset = offset + self._within(mask, index, i, n)[0] * stride
                lead = None if lead is None else (*lead, i)
        return self.like(offset, (*shape, *self.lengths[rest:]), (*strides, *self.strides[rest:]), lead)

    def _out_of_bounds(self, mask: Mask, index: tuple[Any, ...], bad: Any) -> None:
        """Raise for the first active lane that is in `bad`."""
        lane, element, bounds = self.describe_index(mask, index, bad)
        raise KernelIndexError(f"{element} out of bounds for {bounds}, {self.machine.whereabouts(lane)}")

    def describe_index(self, mask: Mask, index: tuple[Any, ...], bad: Any) -> tuple[int, str, str]:
        """Return the first active lane in `bad`, the element that it indexes, and the shape that bounds the index."""
        machine = self.machine
        if any(np.ndim(i) > 2 for i in (bad, *(self.lead or ()), *index)):
            # A loop ran all its iterations at once. It runs again, one by one, and that error names a lane.
            raise KernelIndexError(f"{self.name} is indexed out of bounds in an iteration of a loop")
        lane = int(np.argmax(masks.lanes(mask, machine.shape) & masks.lanes(bad, machine.shape)))

        def of_lane(value: Any) -> Any:
            return int(np.broadcast_to(value, machine.shape).flat[lane])

        lead = self.lead or ()
        text = ", ".join("..." if type(i) in _VIEWS else str(of_lane(i)) for i in (*lead, *index))
        lengths = tuple(of_lane(n) for n in self.lengths)
        if self.lead is None:
            bounds = f"a view of {self.name} with shape {lengths}"
        elif lead:
            axes = "axis" if len(lengths) == 1 else f"{len(lengths)} axes"
            bounds = f"its last {axes}, of shape {lengths}"
        else:
            bounds = f"shape {lengths}"
        return lane, f"{self.name}[{text}]", bounds


def _is_tuple(index: tuple[Any, ...]) -> bool:
    """Tell whether an index is a variable that holds a tuple of indices."""
    return len(index) == 1 and isinstance(index[0], tuple)
