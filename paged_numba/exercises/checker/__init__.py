"""Examines an answer: what a task says of an exercise, the stages of an examination, and the verdict."""
