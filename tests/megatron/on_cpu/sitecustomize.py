"""Python runs this at its start wherever this folder is on PYTHONPATH: Megatron on a CPU if MEGATRON_ON_CPU=1."""

import os

if os.environ.get("MEGATRON_ON_CPU") == "1":
    import megatron_import_hook

    megatron_import_hook.install()
