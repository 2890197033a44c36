"""Every kernel of a lesson compiles for a GPU, with the arguments that the lesson launches it with."""

import ast
import importlib
import runpy

import pytest
from reading import TUTORIALS

numba = pytest.importorskip("numba")
numba_cuda = pytest.importorskip("numba.cuda", reason="numba is not installed")


def launched(path, monkeypatch):
    """Return a lesson's globals, and for each kernel that it defines the types of the arguments of its launches."""
    module = importlib.import_module("paged_numba.lockstep.launch")  # lockstep.launch is its function
    signatures, run = {}, module._launch

    def record(kernel, blocks_per_grid, threads_per_block, args, *more):
        function = getattr(kernel, "py_func", kernel)
        if function.__code__.co_filename == str(path):
            types = tuple(numba.typeof(arg) for arg in args)
            signatures.setdefault(function.__name__, {})[types] = None
        run(kernel, blocks_per_grid, threads_per_block, args, *more)

    monkeypatch.setattr(module, "_launch", record)
    return runpy.run_path(str(path)), signatures


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("[0-9][0-9]_*.py")), ids=lambda path: path.stem)
@pytest.mark.usefixtures("cuda_compiler")
def test_kernels_compile(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made, signatures = launched(path, monkeypatch)
    # The same functions once more, decorated by Numba and not by the machine.
    text = path.read_text(encoding="utf-8")
    defined = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        and any("cuda.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    names = {**made, "cuda": numba_cuda}
    devices = [node for node in defined if "device" in ast.unparse(node.decorator_list[0])]
    for node in devices:
        # Inlined before typing. Numba compiles other device functions for the GPU that is there, and needs one.
        assert "inline='always'" in ast.unparse(node.decorator_list[0]), f"{node.name} needs a GPU to compile"
    for node in defined:
        exec(compile(ast.Module([node], []), str(path), "exec"), names)
    kernels = {node.name for node in defined if node not in devices}
    assert kernels <= set(signatures), "a kernel that no launch shows"
    for name in kernels:
        for types in signatures[name]:
            ptx, _ = numba_cuda.compile_ptx(names[name].py_func, types, cc=(9, 0))
            assert name in ptx
