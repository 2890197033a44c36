"""Functions as values: what a variable of a kernel that holds a function is, and how a call through it runs."""
