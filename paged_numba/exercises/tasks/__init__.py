"""One file for each exercise: how an answer is run, what is expected, hints, and wrong answers that must fail."""
