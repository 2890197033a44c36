"""A small server with continuous batching on the paged cache, checked against dense attention."""
