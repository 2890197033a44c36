"""The language of kernels on lane values: the functions that lane programs call.

`control` has assignment, short circuits and loops; `access` indexing and attributes; `functions`, `synchronization` and
`atomics` the intrinsics, which `intrinsics` lists by the names that kernels call them by.
"""
