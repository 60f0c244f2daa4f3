"""What `verl_ispo` leans on in verl and TransferQueue, in one list, and the check of a verl source against it.

- `contract.yaml`: the list.
- `sources`: reads verl's source, without importing it.
- `uses`: finds what this package uses, so that the list stays complete.
- `checks`: one sentence for each item that a source does not have.

``python -m tests.verl_contract FOLDER`` checks the source in ``FOLDER``, the folder that holds ``verl/``.
"""
