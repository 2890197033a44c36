"""The names of ``numba.cuda`` on the lockstep machine."""
