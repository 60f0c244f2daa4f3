"""Everything around a training on verl: choosing model and data, composing the settings, starting and watching it.

``verl-ispo train``, ``evaluate-run`` and ``reproduce-table`` are here (`launch_arguments` has their command lines);
the scripts under ``scripts/`` turn environment variables into their options. Nothing here imports verl except the
preflight of a dry run: a start composes the config from verl's files and leaves the rest to the training process.
"""
