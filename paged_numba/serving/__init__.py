"""A small serving loop over the paged cache, each step checked against dense attention."""
