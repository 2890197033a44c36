"""A server of one attention layer with random weights, each step checked against dense attention."""
