"""Where ``numba.cuda`` cannot be imported, the facade stands in its place; prints random numbers and Numba's error."""

import contextlib
import sys
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_loader

import numpy as np


class Broken(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return spec_from_loader(name, self, is_package=True) if name == "numba.cuda" else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.half = 1
        raise AttributeError("numba.cuda does not fit its surroundings")


sys.meta_path.insert(0, Broken())
from paged_numba import lockstep

lockstep.install()
import numba
from numba import cuda
from numba.cuda import jit, float64, libdevice
from numba.cuda.cudadrv.devicearray import DeviceNDArray
from numba.cuda.dispatcher import CUDADispatcher
from numba.cuda.libdevice import sqrt
import numba.cuda.random as random
import numba.cuda.args
import numba.cuda.cudadrv.driver
import numba.cuda.types


@jit("void(float64[:])")
def kernel(x):
    tile = cuda.shared.array(4, float64)
    i = cuda.grid(1)
    tile[i] = sqrt(x[i]) + libdevice.sqrt(x[i])
    cuda.syncthreads()
    x[i] = tile[i]


@jit
def draw(states, out):
    i = cuda.grid(1)
    out[i] = random.xoroshiro128p_uniform_float64(states, i)


x = cuda.to_device(np.array([1.0, 4.0, 9.0, 16.0]))
kernel[1, 4](x)
assert x.copy_to_host().tolist() == [2, 4, 6, 8]
assert isinstance(x, DeviceNDArray)
assert isinstance(kernel, CUDADispatcher)
out = np.zeros(3)
draw[1, 3](random.create_xoroshiro128p_states(3, seed=1), out)
print(out.tolist())
with contextlib.suppress(ModuleNotFoundError):
    import numba.cuda.nothing

    raise AssertionError
assert not hasattr(cuda, "half")
lockstep.uninstall()
assert "numba.cuda" not in sys.modules
assert not hasattr(numba, "cuda")
try:
    import numba.cuda
except AttributeError as error:
    print(error)
