"""Functions that kernels call: calls, functions as values, overloads."""
