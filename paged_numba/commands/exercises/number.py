"""The argument that names an exercise by its number."""

from __future__ import annotations

import argparse

from ...exercises.catalogue import Exercise, exercise
from ..options import positive


def add_number(parser: argparse.ArgumentParser) -> None:
    """Declare the argument `exercise`."""
    parser.add_argument(
        "exercise",
        type=_exercise,
        metavar="N",
        help="number of the exercise; paged-numba progress lists them",
    )


def _exercise(text: str) -> Exercise:
    """Return the exercise of a number: a ``type`` for argparse."""
    try:
        return exercise(positive(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
