"""The names of ``numba.cuda``, implemented on the lockstep machine."""
