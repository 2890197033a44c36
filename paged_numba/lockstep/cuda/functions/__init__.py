"""Functions of arrays that run kernels: ufuncs, gufuncs, reductions, and random numbers."""
