"""Launches that are watched: each access, barrier and statement is reported to observers."""
