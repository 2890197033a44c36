"""Tools to test paged attention: Hypothesis strategies and state machines, properties, mutants.

Only `strategies` and `machines` import Hypothesis.
"""
