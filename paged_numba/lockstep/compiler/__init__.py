"""From a kernel's source to a function over lanes."""
