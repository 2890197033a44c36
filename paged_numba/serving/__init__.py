"""Serving: an engine with continuous batching on the paged cache, and `toy`, the small server of the first lessons."""
