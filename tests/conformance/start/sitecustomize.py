"""Puts lockstep in the place of numba.cuda in the scripts that numba-cuda's tests start."""

from paged_numba.lockstep import install

install()
