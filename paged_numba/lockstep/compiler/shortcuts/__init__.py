"""Shortcuts of loops: iterations that run at once, and lanes that are done left out. Lane programs call them."""
