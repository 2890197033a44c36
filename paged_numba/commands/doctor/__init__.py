"""``paged-numba doctor``: shows what is installed, which target runs and why, and what to install for a GPU."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import textwrap
from typing import Any

from ... import targets
from ...draw.text import table
from ...errors import TargetUnavailableError
from ..bench.provenance import package_versions
from ..startup import ENVIRONMENT as INSTALL
from . import packages

GPU_NEEDS = """To run on a GPU (target cuda), you need Linux or Windows, an NVIDIA GPU of compute capability
5.0 or higher (7.5 or higher with CUDA 13), and its driver. Then run in a clone of paged_numba,
depending on the CUDA version that nvidia-smi shows:
  13 or higher:  pip install ".[cuda13]"
  12:            pip install ".[cuda12]"
This installs the CUDA compiler, too; you need no CUDA toolkit."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba doctor``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the findings; return 0, or 1 if a package has a problem or the chosen target cannot run."""
    findings = diagnose()
    if options.json:
        print(json.dumps(findings, indent=1))
    else:
        print(report(findings))
    return 0 if findings["target"] and not findings["problems"] else 1


def diagnose() -> dict[str, Any]:
    """Return the installed versions, the GPU and the target as a record that JSON can hold."""
    needed = packages.examine()
    failure = targets.import_failure("numpy") or targets.numba_cuda_failure()
    target: str | None = None
    if failure is not None:
        why = f"no target can run the kernels of paged_numba: {failure}"
    else:
        try:
            target, why = targets.resolve(), reason()
        except (TargetUnavailableError, ValueError) as error:
            why = f"{error}. {targets.ENVIRONMENT} asks for it"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {**{name: package.version for name, package in needed.items()}, **package_versions()},
        "problems": {name: package.problem for name, package in needed.items() if package.problem},
        "compiler": compiler(),
        "gpu": gpu(),
        "target": target,
        "why": why,
        "cuda_unavailable_reason": targets.cuda_unavailable_reason(),
        "installed": targets.lockstep_installed(),
    }


def reason() -> str:
    """Return the reason for the choice of the target ``auto``."""
    if os.environ.get(targets.ENVIRONMENT, "auto") not in ("", "auto"):
        return f"{targets.ENVIRONMENT}={os.environ[targets.ENVIRONMENT]} is set"
    if targets.lockstep_installed():
        return "lockstep stands in the place of numba.cuda"
    if targets.simulator_enabled():
        return "NUMBA_ENABLE_CUDASIM is set"
    return targets.cuda_unavailable_reason() or "a GPU is present"


def compiler() -> str:
    """Return "found" if Numba's CUDA compiler works, which needs no GPU; otherwise, what is wrong."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "missing: numba-cuda is not installed"
    if targets.simulator_enabled():
        return "not used by the simulator"
    if targets.numba_cuda_failure() is not None:
        return "missing: numba.cuda cannot be imported"
    from numba import cuda

    def store(x):  # type: ignore[no-untyped-def]
        x[0] = 1

    try:
        # The compiler needs several libraries. Compiling a kernel shows that all are there.
        cuda.compile_ptx(store, cuda.types.void(cuda.types.float32[:]), cc=(8, 0))
    except Exception as error:  # its type depends on the version of numba-cuda
        return f"missing: {textwrap.shorten(str(error), 60, placeholder=' ...')}"
    return "found"


def gpu() -> dict[str, Any] | None:
    """Return name, compute capability and multiprocessors of the GPU, or None if no GPU can be used."""
    if targets.cuda_unavailable_reason() is not None:
        return None
    from numba import cuda

    device = cuda.get_current_device()
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    return {
        "name": name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "multiprocessors": device.MULTIPROCESSOR_COUNT,
    }


def place(installed: bool) -> str:
    """Return what stands in the place of ``numba.cuda`` in processes like this one, and why."""
    if installed:
        return f"lockstep stands in its place ({INSTALL}={os.environ.get(INSTALL, '')})"
    if targets.simulator_enabled():
        return "Numba's simulator stands in its place (NUMBA_ENABLE_CUDASIM)"
    return f"itself ({INSTALL}=1 puts lockstep in its place)"


def report(findings: dict[str, Any]) -> str:
    """Return the findings as text."""
    device = findings["gpu"]
    rows = [
        ["Python", f"{findings['python']} ({sys.executable})"],
        ["system", findings["system"]],
        *([name, version or "not installed"] for name, version in findings["packages"].items()),
        ["CUDA compiler", findings["compiler"]],
        [
            "GPU",
            f"{device['name']}, compute capability {device['compute_capability']}"
            if device
            else "none in use",
        ],
        ["numba.cuda", place(findings["installed"])],
    ]
    lines = [table(["what", "found"], rows, left=2), ""]
    if findings["problems"]:
        lines += ["These packages have problems:"]
        lines += [f"  {name}: {problem}" for name, problem in findings["problems"].items()]
        lines += [
            "This installs all required packages again:",
            f"  {packages.remedy(list(findings['problems']))}",
            "",
        ]
    if findings["target"] is None:
        lines.append(f"{findings['why'][0].upper()}{findings['why'][1:]}.")
    else:
        when = "With working packages, kernels would" if findings["problems"] else "Kernels"
        lines.append(f"{when} run on the target {findings['target']}, because {findings['why']}.")
    if findings["target"] != "cuda":
        lines += ["", GPU_NEEDS]
    return "\n".join(lines)
