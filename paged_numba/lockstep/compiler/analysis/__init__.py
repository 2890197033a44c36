"""Analyses of a kernel's syntax tree, made before its lane program is written."""
