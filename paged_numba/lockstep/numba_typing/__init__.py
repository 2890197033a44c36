"""`check_compiles`: asks Numba's type inference, without a GPU or CUDA toolkit, whether it accepts a kernel."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from types import CellType, FunctionType, SimpleNamespace
from typing import Any, NamedTuple

from ...arguments import LONGEST_REPR, shown
from ...errors import CompilationError, LaunchError, TargetUnavailableError
from ..compiler.functions.overloads import for_cuda
from ..compiler.names import decorated_function
from ..compiler.source import Source
from ..language.intrinsics import path_of
from ..language.signatures import Type
from ..language.types.as_numba import as_numba, for_numba_signature, is_ours
from .alignment import check_alignment
from .words import is_typing_error, place, plain, words


def check_compiles(kernel: Any, signature: Any = None) -> None:
    """Check that Numba can compile a kernel: run its type inference, but not its code generation.

    The lockstep machine runs some kernels that Numba refuses. Type inference finds most of them, but not those that
    Numba refuses only when it generates code.

    Parameters
    ----------
    kernel : callable
        A function decorated with ``cuda.jit``, Numba's or the facade's, or the plain Python function.
    signature : str, Numba signature, tuple of Numba types, or tuple of example arguments, optional
        The types of the arguments. By default, the signatures with which the kernel was decorated.

    Raises
    ------
    CompilationError
        Numba cannot compile the kernel; the message holds Numba's reason and the line.
    LaunchError
        `signature` cannot be read, or is missing.
    TargetUnavailableError
        ``numba.cuda`` cannot be imported, or its simulator replaces it.

    See Also
    --------
    options : ``check_compiles=True`` checks each kernel at its first launch with arguments of new types.
    launch : Runs a kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def halve(x):
    ...     if (i := cuda.grid(1)) < x.size:
    ...         x[i] /= 2
    >>> lockstep.launch(halve, 1, 4, np.ones(4))
    >>> lockstep.check_compiles(halve, "void(float32[:])")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    paged_numba.errors.CompilationError: Numba cannot compile halve(array(float32, 1d, A)): ...
    """
    numba = _numba()
    function = decorated_function(kernel) or kernel
    if not isinstance(function, FunctionType):
        raise LaunchError(f"kernel must be a Python function or a decorated one, got {type(kernel).__name__}")
    for types in _argument_types(numba, kernel, function, signature):
        _check(numba, function, types)


def check_launch(kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Check a kernel for the arguments of a launch, unless it has been checked for arguments of these types."""
    numba = _numba()
    function = decorated_function(kernel) or kernel
    checked: set[Any] = Source.of(function).notes.setdefault("compiles", set())
    example = arguments if getattr(kernel, "__lockstep_signatures__", None) in (None, []) else None
    for types in _argument_types(numba, kernel, function, example):
        if types not in checked:
            _check(numba, function, types)
            checked.add(types)


def check_eagerly(kernel: Any) -> None:
    """Infer the types of a kernel or device function for the signatures that it was decorated with, as Numba does.

    Raises
    ------
    numba.core.errors.TypingError
        Numba refuses the function; the error is Numba's own.
    """
    try:
        numba = _numba()
    except TargetUnavailableError:  # where lockstep stands in for a numba.cuda that cannot be imported
        return
    given = _argument_types(numba, kernel, kernel.py_func, None)
    try:
        for types in given:
            inferred(kernel.py_func, types)
    except Exception as error:
        # Of any other error, the launch will tell. A function that calls itself is not defined yet. Numba takes some
        # functions that return an array (``carray``) in line, which type inference alone refuses.
        if is_typing_error(error) and not re.search(
            "NameError|UndefinedType|Only accept returning of array", str(error)
        ):
            raise error.with_traceback(None) from None
    # Inference has read the source; the function may yet get names that are undefined now.
    Source.forget(kernel.py_func)


def refused_by_numba(kernel: Any, arguments: tuple[Any, ...]) -> str | None:
    """Return what Numba says if its type inference refuses a kernel for the arguments of a launch, else None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = _refusal(kernel, arguments)
    return None if error is None else plain(error)


def unassigned(kernel: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Return Numba's warnings of variables of a kernel that may be read before they are assigned."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _refusal(kernel, arguments)
    return [w.message for w in seen if "uninitialized variable" in str(w.message)]


def _refusal(kernel: Any, arguments: tuple[Any, ...]) -> BaseException | None:
    """Return the error of Numba's type inference for the arguments of a launch, or None."""
    try:
        numba = _numba()
        given = _argument_types(
            numba, kernel, kernel.py_func, None if kernel.__lockstep_signatures__ else arguments
        )
    except (TargetUnavailableError, LaunchError, CompilationError):
        return None
    try:
        for types in given:
            _inferred(numba, kernel.py_func, types)
    except Exception as error:
        if is_typing_error(error):
            return error
    return None


def for_numba(function: Any) -> Any:
    """Return a function with the same code, in which the names of the facade mean Numba's."""
    return _Rebuilt(_numba()).function(function)


def inferred(function: Any, types: tuple[Any, ...], result: Any = None) -> Any:
    """Return the signature that Numba infers for a function with arguments of Numba's types."""
    numba = _numba()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _inferred(numba, function, types, result)


def _inferred(numba: _Numba, function: Any, types: tuple[Any, ...], result: Any = None) -> Any:
    with numba.lock:
        rebuilt = _Rebuilt(numba)
        with rebuilt.device_functions_are_only_typed():
            return rebuilt.typed(rebuilt.function(function), types, result)


# Numba's parts, wherever its releases keep them.


class _Numba(NamedTuple):
    cuda: Any
    compile_extra: Callable[..., Any]
    pipeline: type
    flags: Callable[[], Any]
    dispatcher: Any
    dispatcher_class: Any
    contexts: Callable[[], tuple[Any, Any]]
    normalize: Callable[[Any], tuple[Any, Any]]
    signature: Callable[..., Any]
    concrete: Callable[..., Any]
    types: Any
    lock: Any


@cache
def _numba() -> _Numba:
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        raise TargetUnavailableError(
            "check_compiles needs Numba's compiler, which NUMBA_ENABLE_CUDASIM=1 replaces by the simulator"
        )
    try:
        from numba import cuda, types
        from numba.core import compiler as core_compiler
        from numba.cuda import compiler, descriptor, dispatcher

        try:
            from numba.cuda import typing
            from numba.cuda.core import sigutils
        except ImportError:
            from numba.core import sigutils, typing
    except ImportError as error:
        raise TargetUnavailableError(
            f"check_compiles needs numba.cuda, which cannot be imported ({error}): install numba-cuda"
        ) from error

    @compiler.register_pass(mutates_CFG=False, analysis_only=True)
    class Finish(compiler.LoweringPass):  # type: ignore[misc]
        """Ends the pipeline after typing; the signature is the result."""

        _name = "paged_numba_typing_only"

        def __init__(self) -> None:
            compiler.LoweringPass.__init__(self)

        def run_pass(self, state: Any) -> bool:
            check_alignment(state)
            state.cr = typing.signature(state.return_type, *state.args)
            return True

    class TypingOnly(compiler.CUDACompiler):  # type: ignore[misc]
        """Numba's pipeline without the passes that generate code."""

        def define_cuda_lowering_pipeline(self, state: Any) -> Any:
            passes = compiler.PassManager("typing only")
            passes.add_pass(Finish, "typing only")
            passes.finalize()
            return passes

    def flags() -> Any:
        made = (getattr(compiler, "CUDAFlags", None) or dispatcher.Flags)()
        made.no_compile = made.no_cpython_wrapper = made.no_cfunc_wrapper = True
        made.error_model = "numpy"
        return made

    def contexts() -> tuple[Any, Any]:
        target = descriptor.cuda_target
        return target.typing_context, target.target_context

    return _Numba(
        cuda,
        getattr(compiler, "compile_extra", None) or core_compiler.compile_extra,
        TypingOnly,
        flags,
        dispatcher,
        getattr(
            dispatcher.CUDADispatcher, "__wrapped__", dispatcher.CUDADispatcher
        ),  # while lockstep is installed
        contexts,
        sigutils.normalize_signature,
        typing.signature,
        typing.make_concrete_template,
        types,
        dispatcher.global_compiler_lock,
    )


def _argument_types(numba: _Numba, kernel: Any, function: Any, signature: Any) -> list[tuple[Any, ...]]:
    if signature is None:
        given = getattr(kernel, "__lockstep_given__", None)
        if given is None:
            raise LaunchError(
                f"signature must be given, or {function.__name__} decorated with one, got signature=None"
            )
    else:
        given = signature
    given = for_numba_signature(given) if is_ours(given) else given
    if isinstance(given, tuple) and not (given and all(_is_type(item) for item in given)):
        return [tuple(_type_of(numba, number, item) for number, item in enumerate(given))]
    try:
        return [tuple(numba.normalize(one)[0]) for one in (given if isinstance(given, list) else [given])]
    except Exception as error:
        raise LaunchError(
            f"a signature must read like 'void(float32[:], int32)', got signature={shown(given)} "
            f"({str(error)[:LONGEST_REPR]})"
        ) from error


def _is_type(value: Any) -> bool:
    return any(base.__name__ == "Type" and "numba" in base.__module__ for base in type(value).__mro__)


def _type_of(numba: _Numba, number: int, value: Any) -> Any:
    value = getattr(value, "__lockstep_array__", value)
    try:
        return numba.dispatcher.typeof(value, numba.dispatcher.Purpose.argument)
    except Exception as error:
        raise CompilationError(
            f"argument {number} must have a type that Numba knows, got {type(value).__name__} ({words(error)})"
        ) from None


# Typing.


def _check(numba: _Numba, function: Any, types: tuple[Any, ...]) -> None:
    text = f"{function.__name__}({', '.join(map(str, types))})"
    names = Source.of(function).parameters
    if len(names) != len(types):
        raise LaunchError(
            f"signature must have a type for each parameter ({', '.join(names)}), got {text[:LONGEST_REPR]}"
        )
    with numba.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rebuilt = _Rebuilt(numba)
        try:
            with rebuilt.device_functions_are_only_typed():
                result = rebuilt.typed(rebuilt.function(function), types)
        except Exception as error:
            walrus = any(isinstance(node, ast.NamedExpr) for node in ast.walk(Source.of(function).definition))
            why = words(error) + ("; Numba has no assignment expressions (:=)" if walrus else "")
            raise CompilationError(f"Numba cannot compile {text}: {why}, {place(error, function)}") from error
    if result.return_type != numba.types.none:
        raise CompilationError(
            f"Numba cannot compile {text}: a kernel must return nothing, got {result.return_type}"
        )


class _Rebuilt:
    """Functions whose names mean Numba's objects where they mean the facade's."""

    def __init__(self, numba: _Numba) -> None:
        self.numba = numba
        self.made: dict[Any, Any] = {}

    def function(self, function: Any) -> Any:
        """Return a function with the same code, and the constants that the lockstep machine has read."""
        source = Source.of(function)
        if source not in self.made:
            cells = {name: CellType() for name in source.code.co_freevars}
            space = dict(function.__globals__)
            copy = FunctionType(
                source.code, space, function.__name__, function.__defaults__, tuple(cells.values())
            )
            copy.__kwdefaults__ = function.__kwdefaults__
            copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
            self.made[source] = copy
            for name, value in source.outer.items():
                if name in cells:
                    cells[name].cell_contents = self.value(value)
                elif name in space:
                    space[name] = self.value(value)
        return self.made[source]

    def value(self, value: Any) -> Any:
        """Return Numba's object for a name of the facade, or a kernel of it."""
        if hasattr(value, "__lockstep_signatures__"):
            function = self.function(value.py_func)  # which makes a dispatcher for its recursive calls
            if value not in self.made:
                options = {"device": value.device}
                made = self.numba.dispatcher_class(function, targetoptions=options)
                made.paged_numba_signatures = value.__lockstep_given__
                self.made[value] = made
            return self.made[value]
        path = path_of(value)
        if path is None:
            return as_numba(value) if isinstance(value, Type) else value
        found = self.numba.cuda
        for part in path.split(".")[1:]:
            found = getattr(found, part, value)
        return found

    def typed(self, function: Any, types: tuple[Any, ...], result: Any = None) -> Any:
        """Return the signature that Numba infers."""
        numba = self.numba
        contexts = numba.contexts()
        with for_cuda():
            return numba.compile_extra(
                *contexts, function, types, result, numba.flags(), {}, pipeline_class=numba.pipeline
            )

    @contextlib.contextmanager
    def device_functions_are_only_typed(self) -> Iterator[None]:
        """In a ``with`` statement, Numba types device functions and does not compile them."""
        numba, cls = self.numba, self.numba.dispatcher_class
        original = cls.get_call_template
        known: dict[Any, Any] = {}
        made: list[tuple[Any, Any]] = []

        def get_call_template(dispatcher: Any, args: Any, kws: Any) -> Any:
            compiler = (
                getattr(dispatcher, "fold_argument_types", None) or dispatcher._compiler.fold_argument_types
            )
            pysig, args = compiler(args, kws)
            given = getattr(dispatcher, "paged_numba_signatures", None)
            py_func = dispatcher.py_func
            if given is not None:
                signatures = []
                for one in given if isinstance(given, list) else [given]:
                    types, result = numba.normalize(one)
                    signatures.append((tuple(types), result))
            elif dispatcher._can_compile:
                signatures = [(tuple(args), None)]
            else:
                template = numba.concrete(
                    "template", key=py_func.__name__, signatures=dispatcher.nopython_signatures
                )
                return template, pysig, args, {}
            found = []
            for types, result in signatures:
                key = py_func, types
                if key not in known:
                    with dispatcher._compiling_counter:
                        known[key] = self.typed(py_func, types, result)
                    if types not in dispatcher.overloads:
                        # Recursion with other types asks for the name of the code that there would be.
                        dispatcher.overloads[types] = SimpleNamespace(
                            signature=known[key],
                            objectmode=False,
                            fndesc=SimpleNamespace(modname="", qualname=py_func.__name__, uid=len(made)),
                        )
                        made.append((dispatcher, types))
                found.append(known[key])
            template = numba.concrete("template", key=py_func.__name__, signatures=found)
            return template, pysig, args, {}

        def get_overload(dispatcher: Any, sig: Any) -> Any:
            return None  # what code generation would need

        cls.get_call_template, cls.get_overload = get_call_template, get_overload
        try:
            yield
        finally:
            for dispatcher, types in made:
                del dispatcher.overloads[types]
            del cls.get_overload
            cls.get_call_template = original
