"""What tests of paged attention share: tolerances, Hypothesis strategies, deliberately wrong code.

Hypothesis is imported only by `paged_numba.testing.strategies`.
"""
