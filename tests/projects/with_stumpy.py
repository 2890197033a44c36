"""Compares stumpy's GPU functions with its CPU functions; ``paged-numba run`` runs it. Prints the cases that agree."""

import sys

import numpy as np

if __name__ == "__mp_main__":
    # A child process of a pool. The file that makes PAGED_NUMBA_INSTALL work is there only where a wheel is installed.
    from paged_numba import lockstep

    lockstep.install()

import stumpy

M = 8
RNG = np.random.default_rng(17)
PLAIN, OTHER = RNG.normal(size=70), RNG.normal(size=50)
GAPS = PLAIN.copy()
GAPS[[20, 55]] = np.nan, np.inf
FLAT = np.concatenate([RNG.normal(size=20), np.full(15, 3.0), RNG.normal(size=20), np.full(12, -1.0)])
SHORT = RNG.normal(size=M + 2)
SERIES = {"plain": PLAIN, "gaps": GAPS, "flat": FLAT}


def normalized(piece):
    return np.zeros(len(piece)) if np.ptp(piece) == 0 else (piece - piece.mean()) / piece.std()


def distance(a, b, name):
    """Return the distance of two subsequences, as stumpy defines it."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.inf
    if name == "aamp":
        return np.linalg.norm(a - b)
    return np.linalg.norm(normalized(a) - normalized(b))


def check_profile(name, found, expected, a, b):
    """Compare matrix profiles: the distances, and that each index is that of a subsequence at that distance."""
    found, expected = np.array(found, dtype=float), np.array(expected, dtype=float)
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=1e-6)
    for i, (least, j) in enumerate(found[:, :2]):
        if j == -1:
            assert np.isinf(least)
        else:
            assert abs(distance(a[i : i + M], b[int(j) : int(j) + M], name) - least) < 1e-6, (i, j)
    if a is not FLAT and b is not FLAT:  # no ties
        np.testing.assert_array_equal(found[:, 1:], expected[:, 1:])


def profiles():
    for name in ("stump", "aamp"):
        on_gpu, on_cpu = getattr(stumpy, f"gpu_{name}"), getattr(stumpy, name)
        for kind, series in SERIES.items():
            check_profile(name, on_gpu(series, M), on_cpu(series, M), series, series)
            yield f"gpu_{name} self-join {kind}"
            arguments = (series, M, OTHER, False)
            check_profile(name, on_gpu(*arguments, device_id=[0]), on_cpu(*arguments), series, OTHER)
            yield f"gpu_{name} AB-join {kind}"
        check_profile(name, on_gpu(SHORT, M, PLAIN, False), on_cpu(SHORT, M, PLAIN, False), SHORT, PLAIN)
        yield f"gpu_{name} AB-join short"
        top = on_gpu(PLAIN, M, k=3, device_id=0), on_cpu(PLAIN, M, k=3)
        np.testing.assert_allclose(*(np.array(one, dtype=float) for one in top), atol=1e-6)
        yield f"gpu_{name} 3 nearest"


def on_two_devices():
    """Share the work with a process of a pool, which has the device to itself."""
    arguments = (PLAIN, M, OTHER, False)
    found = stumpy.gpu_stump(*arguments, device_id=[0, 0])
    check_profile("stump", found, stumpy.stump(*arguments), PLAIN, OTHER)
    yield "gpu_stump on two devices"


def others():
    for name in ("mpdist", "aampdist"):
        found = getattr(stumpy, f"gpu_{name}")(GAPS, OTHER, M)
        np.testing.assert_allclose(found, getattr(stumpy, name)(GAPS, OTHER, M), atol=1e-6)
        yield f"gpu_{name}"
    many = [RNG.normal(size=length) for length in (40, 30, 35)]
    for name in ("ostinato", "aamp_ostinato"):
        found, expected = getattr(stumpy, f"gpu_{name}")(many, M), getattr(stumpy, name)(many, M)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
        assert found[1:] == expected[1:]
        yield f"gpu_{name}"
    for name in ("stimp", "aamp_stimp"):
        found = getattr(stumpy, f"gpu_{name}")(OTHER, min_m=4, max_m=6)
        expected = getattr(stumpy, name)(OTHER, min_m=4, max_m=6, percentage=1.0)
        for _ in range(3):
            found.update()
            expected.update()
        for place in range(3):
            np.testing.assert_allclose(found.P_[place], expected.P_[place], atol=1e-6)
        yield f"gpu_{name}"


def main():
    cases = {"profiles": profiles, "devices": on_two_devices, "others": others}
    done = []
    for case in cases[sys.argv[1]]():
        print(case, flush=True)
        done.append(case)
    if sys.argv[1] == "others":
        names = {name for name in dir(stumpy) if name.startswith("gpu_")}
        print(sorted(names - {case.split()[0] for case in done}))


if __name__ == "__main__":
    main()
