"""Deliberately wrong kernels and allocators: a property that notices none of them proves nothing."""
