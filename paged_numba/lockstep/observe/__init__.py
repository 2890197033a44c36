"""Observed launches: the machine reports each access, barrier and statement to the observers."""
