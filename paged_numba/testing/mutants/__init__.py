"""Deliberately wrong kernels, plans, allocators and caches: the properties must find the mistake in each."""
