"""Exercises that check the learner's answer: `start` writes the learner's file, `check` examines an answer.

An exercise has two files of the same number and name. ``solutions/NN_name.py`` is the file that the learner ends up
with; what stands between marks in it is the solution, and `skeletons` makes the learner's file of it.
``tasks/eNN_name.py`` says how an answer is run and what is expected of it; ``aids`` has what several tasks share. The
folder ``checker`` examines an answer, ``process`` does so in a process of its own, and ``verdict`` says what was found.
"""

from .checking import check
from .folder import start
from .verdict import Verdict

__all__ = ["Verdict", "check", "start"]
