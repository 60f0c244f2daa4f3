"""The quickstart's small task: worked arithmetic, a byte-level Qwen2 model, its warm start and the table at the end.

Nothing here imports verl; only the trainings that the examples start do. Each module that is a command says so in its
docstring and explains itself with ``--help``.
"""
