"""Words of error messages: plain names of syntax that the machine does not run, and what to write instead."""

IN_WORDS = {
    "AsyncFor": ("async for", "use for"),
    "AsyncFunctionDef": ("async def", "use def"),
    "AsyncWith": ("async with", "move it to the host code"),
    "Await": ("await", "move it to the host code"),
    "ClassDef": ("a class", "define it outside the kernel"),
    "Delete": ("del", "leave it out"),
    "Dict": ("a dictionary", "use a tuple, or an array indexed by integers"),
    "DictComp": ("a dictionary comprehension", "write a loop that fills an array"),
    "GeneratorExp": ("a generator expression", "write a loop"),
    "Global": ("global", "store into an array that is an argument"),
    "Import": ("import", "import outside the kernel"),
    "ImportFrom": ("import", "import outside the kernel"),
    "JoinedStr": ("an f-string", "pass several arguments to print"),
    "List": ("a list", "use a tuple or cuda.local.array"),
    "ListComp": ("a list comprehension", "write a loop that fills a cuda.local.array"),
    "Set": ("a set", "use a tuple or cuda.local.array"),
    "SetComp": ("a set comprehension", "write a loop that fills a cuda.local.array"),
    "Starred": ("a starred expression", "write each value by itself"),
    "Try": ("try", "test with if before the error can happen"),
    "With": ("with", "move it to the host code"),
    "Yield": ("yield", "store into an array"),
    "YieldFrom": ("yield from", "store into an array"),
}
"""By the class of a syntax node: its plain name, and what to write instead."""
