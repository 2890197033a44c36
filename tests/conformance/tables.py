"""Tables about numba-cuda's tests: what feature a module tests, which tests need a compiler, and what differs.

Names of tests are patterns of `fnmatch`, without ``numba.cuda.tests.`` in front.
"""

from fnmatch import fnmatchcase

FEATURES = {
    "arrays in kernels": "test_array test_array_args test_array_methods test_array_reductions test_slicing "
    "test_iterators",
    "device arrays and host memory": "test_cuda_array_interface test_retrieve_autoconverted_arrays "
    "test_device_array_capture test_transpose test_stream_api test_numba_interop",
    "shared, local and constant memory": "test_sm test_sm_creation test_localmem test_constmem test_array_alignment "
    "test_alignment",
    "records": "test_record_dtype",
    "numbers and types": "test_casting test_boolean test_idiv test_powi test_operator test_optimization test_minmax "
    "test_typeconv test_typeinfer test_py2_div_issue test_vector_type test_enums test_datetime test_const_string "
    "test_fp8_bindings test_bfloat16 test_bfloat16_bindings test_cupy_bfloat16_interop",
    "complex numbers": "test_complex test_complex_kernel",
    "math and libdevice": "test_math test_libdevice test_frexp_ldexp test_fastmath test_intrinsics",
    "control flow": "test_lang test_flow_control test_ssa test_analysis test_byteflow test_ir test_ir_utils "
    "test_copy_propagate",
    "functions": "test_device_func test_freevar test_globals test_recursion test_make_function_to_jit_function "
    "test_inline test_cuda_jit_no_types",
    "overloads and extensions": "test_overload test_extending test_extending_types",
    "atomics": "test_atomics",
    "synchronization": "test_sync test_cooperative_groups test_cg test_nondet",
    "warp operations": "test_warp_ops",
    "cache hints": "test_cache_hints",
    "printing, exceptions and warnings": "test_print test_exception test_userexc test_errors test_warning test_tracing",
    "vectorize and guvectorize": "test_ufuncs test_vectorize test_vectorize_complex test_vectorize_decor "
    "test_vectorize_device test_vectorize_scalar_arg test_gufunc test_gufunc_scalar test_gufunc_scheduling test_ufunc",
    "reductions": "test_reduction",
    "random numbers": "test_random",
    "launches and dispatchers": "test_dispatcher test_forall test_launch_config_sensitive test_multithreads "
    "test_serialize",
    "compiling and inspecting": "test_compiler test_inspect test_debug test_debuginfo test_debuginfo_types "
    "test_lineinfo test_caching",
    "foreign code": "test_cffi test_ffi test_cpointer",
    "several GPUs and processes": "test_multigpu test_multiprocessing test_ipc",
    "whole programs": "test_blackscholes test_laplace test_mandel test_matmul test_montecarlo test_sessionize "
    "test_cpu_gpu_compat test_vecadd",
}
"""Features, with the modules that test them."""

FEATURE_OF = {module: feature for feature, modules in FEATURES.items() for module in modules.split()}

_COMPILED = "compiles and reads the PTX, LLVM IR or debug information"
_FRONT = "tests Numba's own front end (bytecode, IR, types); no kernel runs"
_LINKED = "links CUDA C, PTX or a library"
_RESOURCES = "reads the registers or the memory of a compiled kernel"
_TYPED = "reads the type annotations of a compiled kernel"
_CACHED = "reads the cache of compiled kernels"
_COMPILE_STEP = "hooks the step of the dispatcher that compiles"

_OUTSIDE = {
    _COMPILED: """
        cudapy.test_array_alignment.TestArrayAddressAlignment.test_array_alignment_?d
        cudapy.test_atomics.*.test_atomic_add_double cudapy.test_atomics.*.test_atomic_add_double_[23]
        cudapy.test_atomics.*.test_atomic_add_double_global cudapy.test_atomics.*.test_atomic_add_double_global_[23]
        cudapy.test_bfloat16_bindings.*.test_bf16_intrinsics_used_in_lto
        cudapy.test_cache_hints.*
        cudapy.test_casting.*_ptx cudapy.test_casting.*.test_native_cast
        cudapy.test_compiler.*
        cudapy.test_const_string.TestConstStringCodegen.*
        cudapy.test_constmem.*.test_const_array cudapy.test_constmem.*.test_const_array_[23]d
        cudapy.test_debug.*
        cudapy.test_debuginfo.* !cudapy.test_debuginfo.*.test_issue_5835 !cudapy.test_debuginfo.*.test_debug_function_*
        !cudapy.test_debuginfo.*.test_chained_* !cudapy.test_debuginfo.*.test_union_debug
        cudapy.test_debuginfo_types.*
        cudapy.test_device_func.*.test_inspect_*
        cudapy.test_dispatcher.TestLaunchBounds.test_launch_bounds_*
        cudapy.test_fastmath.* !cudapy.test_fastmath.*.test_divf_exception
        cudapy.test_inline.*
        cudapy.test_inspect.*
        cudapy.test_intrinsics.*_ptx cudapy.test_intrinsics.*.test_selp
        cudapy.test_libdevice.TestLibdeviceCompilation.*
        cudapy.test_lineinfo.*_in_asm cudapy.test_lineinfo.*_in_device_function
        cudapy.test_lineinfo.*.test_lineinfo_maintains_error_model
        cudapy.test_lineinfo.*.test_lineinfo_with_compile_internal
        cudapy.test_localmem.*.test_local_array
        cudapy.test_mandel.*
        cudapy.test_minmax.*
        cudapy.test_operator.*_ptx
        cudapy.test_optimization.*
        cudapy.test_sync.*_codegen
        cudapy.test_warp_ops.*_const_mode_val*
    """,
    _FRONT: """
        cudapy.test_byteflow.* cudapy.test_copy_propagate.* cudapy.test_ir.* cudapy.test_ir_utils.*
        cudapy.test_tracing.* cudapy.test_typeconv.* cudapy.test_typeinfer.*
        cudapy.test_analysis.TestBranchPrune.test_cond_rewrite_is_correct
        cudapy.test_analysis.TestBranchPrune.test_redefin*
        cudapy.test_analysis.TestBranchPrunePredicates.test_literal_const_code_gen
        cudapy.test_analysis.TestBranchPrunePredicates.test_single_if*
        cudapy.test_extending.TestNumbaInternalOverloads.*
    """,
    _LINKED: """
        cudapy.test_cffi.* doc_examples.test_ffi.*
        cudapy.test_cooperative_groups.*.test_external_cooperative_func
        cudapy.test_cooperative_groups.*.test_false_cooperative_doesnt_link_cudadevrt
        cudapy.test_device_func.TestDeclareDevice.* cudapy.test_device_func.TestDeclareDeviceCABI.*
        cudapy.test_extending.TestExtendingLinkage.*
        cudapy.test_warning.*.test_float16_warn_if_lto_missing
    """,
    _RESOURCES: "cudapy.test_dispatcher.TestDispatcherKernelProperties.*",
    _TYPED: """
        cudapy.test_localmem.*.test_*_dtype !cudapy.test_localmem.*.test_invalid_string_dtype
        cudapy.test_localmem.*.test_type_with_struct_data_model
        cudapy.test_sm_creation.*.test_*_dtype !cudapy.test_sm_creation.*.test_invalid_string_dtype
        cudapy.test_sm_creation.*.test_type_with_struct_data_model
    """,
    _CACHED: "cudapy.test_caching.*",
    "writes the LLVM IR of a function itself (`@intrinsic`, `lower_builtin`)": """
        cudapy.test_extending.TestExtending.*
        cudapy.test_extending.TestIntrinsic.test_serialization cudapy.test_extending.TestIntrinsic.test_void_return
        cudapy.test_extending.TestLowLevelExtending.test_func1*
        cudapy.test_localmem.*.test_struct_model_type_arr
    """,
    "asks whether the compiler made a kernel cooperative": "cudapy.test_cooperative_groups.*_is_cooperative",
    _COMPILE_STEP: """
        cudapy.test_dispatcher.*.test_capture_compile_config
        cudapy.test_dispatcher.*.test_dispatcher_mark_launch_config_sensitive
        cudapy.test_dispatcher.*.test_launch_config_a*
        cudapy.test_launch_config_sensitive.*
    """,
    "measures how long a compilation takes": "cudapy.test_errors.TestStringArgCompileTime.*",
    "passes memory between processes by the driver": "cudapy.test_ipc.*",
    "replaces functions of the driver, or asks its memory manager": """
        cudapy.test_cuda_array_interface.*.test_ownership
        cudapy.test_vectorize.*.test_no_transfer_for_device_data
    """,
    "expects the driver's error after a fork": "cudapy.test_multiprocessing.*",
}
OUTSIDE = {pattern: why for why, patterns in _OUTSIDE.items() for pattern in patterns.split()}
"""Patterns of tests that look at what a compiler or a driver makes, with what they look at.

These tests count as outside even if they pass. A pattern with ``!`` in front excepts tests.
"""

_GRID = (
    "SynchronizationError: grid.sync()",
    "`grid.sync()` is an error if some threads of the grid do not reach it",
)
DIFFERS: dict[str, tuple[str, str]] = {
    "cudapy.test_atomics.*.test_atomic_sub3": (
        "LaunchTypeError: ary must be int32",
        "an array must have the dtype of the signature; this test passes uint32 for int32",
    ),
    "cudapy.test_dispatcher.*.test_explicit_signatures_ambiguous_resolution": (
        "Ambiguous overloading",
        "the error of an ambiguous call names the same signatures in other words",
    ),
    "cudapy.test_exception.*.test_exception": (
        "KernelIndexError: a tuple of 1 elements has no element -2",
        "an index out of bounds of a tuple is an error with and without `debug=True`",
    ),
    "cudapy.test_dispatcher.*.test_dispatcher_cpointer_arguments": (
        "KernelIndexError: x[10] out of bounds",
        "an index out of bounds is an error; this test reads 16 elements of arrays of 10",
    ),
    "doc_examples.test_laplace.*": _GRID,
    "doc_examples.test_sessionize.*": _GRID,
}
"""Tests that fail because lockstep differs from a GPU on purpose.

Each has what stands in the reason of the failure, and how lockstep differs.
"""


def feature_of(test_id):
    """Return the feature of a test."""
    return FEATURE_OF[test_id.split(".")[1]]


def outside(test_id):
    """Return what a test looks at that a compiler or a driver makes, or None."""
    if any(pattern[0] == "!" and fnmatchcase(test_id, pattern[1:]) for pattern in OUTSIDE):
        return None
    return next((why for pattern, why in OUTSIDE.items() if fnmatchcase(test_id, pattern)), None)


def judged(test_id, outcome, reason):
    """Return the outcome and the reason of a test, after a look at the tables."""
    if outcome == "skipped":
        return outcome, reason
    if (why := outside(test_id)) is not None:
        return "outside", why
    if outcome != "pass":
        for pattern, (failure, how) in DIFFERS.items():
            if fnmatchcase(test_id, pattern) and failure in reason:
                return "differs", how
    return outcome, reason
