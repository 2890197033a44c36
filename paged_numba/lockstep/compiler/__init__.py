"""Compiler: translates the source of a kernel into a Python function over lanes, its lane program.

All lanes run the same lane program together, so an ``if`` cannot jump. It becomes operations on masks:

>>> from paged_numba import cuda, lockstep
>>> @cuda.jit
... def clip(x, low):
...     i = cuda.threadIdx.x
...     if x[i] < low:
...         value = low
...     else:
...         value = x[i]
...     x[i] = value
>>> print(lockstep.lane_program(clip))  # doctest: +NORMALIZE_WHITESPACE
def clip(_rt, _m, v_x, v_low):
    _h0 = _m
    _r = False
    _v = UNSET
    v_i = Unset('i')
    v_value = Unset('value')
    _t = _rt.threadIdx.x
    v_i = _t if _m is _h0 else blend(_m, _t, v_i)
    _t1, _e1 = split(_m, (load(_m, v_x, v_i) < v_low))
    _s1 = _m
    if _t1 is not False:
        _m = _t1
        v_value = v_low if _m is _h0 else blend(_m, v_low, v_value)
    if _e1 is not False:
        _m = _e1
        _t = load(_m, v_x, v_i)
        v_value = _t if _m is _h0 else blend(_m, _t, v_value)
    _m = _s1
    store(_m, v_x, v_i, v_value)
    return None if _v is UNSET else _v

``_m`` is the mask of active lanes. ``split`` divides it by the test, each branch runs with its part unless that is
empty, and afterwards ``_m`` is the mask from before. ``blend`` keeps the old value of a variable in inactive lanes;
``_h0`` is the mask on entry to the region that contains all accesses to the variable (see `analysis.syntax`).

`translate` compiles the program that `statements`, `loops`, `expressions`, `functions.calls` and `names` write. The
functions that the program calls are in ``lockstep.language``, masks in ``lockstep.machine.masks``.
"""
