"""Arrays in kernels: iteration, views, methods, functions of NumPy, and ufuncs on arrays."""
