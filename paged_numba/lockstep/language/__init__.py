"""The language of kernels on lane values: the functions that lane programs call.

`control` holds assignment, short circuits and loops; `access` holds indexing and attributes; `functions`,
`synchronization` and `atomics` hold the intrinsics, and `intrinsics` lists them by their names in kernels.
"""
