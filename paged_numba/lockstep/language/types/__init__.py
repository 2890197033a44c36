"""Types of kernels that are no numbers of NumPy, and functions of them; also exact fused arithmetic."""
