"""The command ``paged-numba``: a module for each of its commands."""
