"""Tables about numba-cuda's tests: what feature a module tests, which tests need a compiler, and what differs.

Names of tests are patterns of `fnmatch`, without ``numba.cuda.tests.`` in front.
"""

from fnmatch import fnmatchcase

FEATURES = {
    "arrays in kernels": "test_array test_array_args test_array_methods test_array_reductions test_slicing test_iterators",
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
    "launches and dispatchers": "test_dispatcher test_forall test_launch_config_sensitive test_multithreads test_serialize",
    "compiling and inspecting": "test_compiler test_inspect test_debug test_debuginfo test_debuginfo_types test_lineinfo "
    "test_caching",
    "foreign code": "test_cffi test_ffi test_cpointer",
    "several GPUs and processes": "test_multigpu test_multiprocessing test_ipc",
    "whole programs": "test_blackscholes test_laplace test_mandel test_matmul test_montecarlo test_sessionize "
    "test_cpu_gpu_compat test_vecadd",
}
"""Features, with the modules that test them."""

FEATURE_OF = {module: feature for feature, modules in FEATURES.items() for module in modules.split()}

OUTSIDE: dict[str, str] = {}
"""Tests that look at what a compiler or a driver makes, with what they look at."""

DIFFERS: dict[str, tuple[str, str]] = {}
"""Tests that fail because lockstep differs from a GPU on purpose.

Each has what stands in the reason of the failure, and how lockstep differs.
"""


def feature_of(test_id):
    """Return the feature of a test."""
    return FEATURE_OF[test_id.split(".")[1]]


def judged(test_id, outcome, reason):
    """Return the outcome and the reason of a test, after a look at the tables if it failed."""
    if outcome in ("refused", "wrong", "raw"):
        for pattern, why in OUTSIDE.items():
            if fnmatchcase(test_id, pattern):
                return "outside", why
        for pattern, (failure, how) in DIFFERS.items():
            if fnmatchcase(test_id, pattern) and failure in reason:
                return "differs", how
    return outcome, reason
