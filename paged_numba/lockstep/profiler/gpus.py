"""Peak rates of GPUs, from the manufacturers' data sheets."""

from __future__ import annotations

from typing import NamedTuple


class GPU(NamedTuple):
    """Peak rates of a GPU: device memory bandwidth, and arithmetic outside the tensor cores.

    Attributes
    ----------
    name : str
    bandwidth : float
        Bytes a second.
    float16, float32, float64 : float
        Floating-point operations a second.
    source : str
        The documents that state the figures.

    Examples
    --------
    >>> from paged_numba.lockstep.profiler import GPUS
    >>> list(GPUS)
    ['H200', 'H100', 'A100', 'L4', 'T4', 'RTX 4090']
    >>> GPUS["H200"].bandwidth / 1e12
    4.8
    """

    name: str
    bandwidth: float
    float16: float
    float32: float
    float64: float
    source: str


_HOPPER = "NVIDIA H100 Tensor Core GPU Architecture (white paper), table of peak rates"

GPUS: dict[str, GPU] = {
    gpu.name: gpu
    for gpu in (
        GPU("H200", 4.8e12, 133.8e12, 66.9e12, 33.5e12, f"NVIDIA H200 data sheet (bandwidth); {_HOPPER}"),
        GPU(
            "H100", 3.35e12, 133.8e12, 66.9e12, 33.5e12, f"NVIDIA H100 data sheet, SXM (bandwidth); {_HOPPER}"
        ),
        GPU("A100", 2.039e12, 78e12, 19.5e12, 9.7e12, "NVIDIA A100 data sheet (80 GB SXM) and white paper"),
        GPU(
            "L4",
            300e9,
            30.3e12,
            30.3e12,
            0.47e12,
            "NVIDIA L4 data sheet; NVIDIA Ada architecture (1/64 float64)",
        ),
        GPU(
            "T4",
            320e9,
            16.2e12,
            8.1e12,
            0.25e12,
            "NVIDIA T4 data sheet; NVIDIA Turing architecture white paper",
        ),
        GPU(
            "RTX 4090",
            1.008e12,
            82.6e12,
            82.6e12,
            1.3e12,
            "NVIDIA Ada GPU Architecture (white paper), table 2",
        ),
    )
}
"""The GPUs for which there are rooflines, by name."""
