"""Responses from a checkpoint on this machine, or on the cluster that it is part of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.model_folder import model_digest, resolve_checkpoint
from verl_ispo.evaluation.prompts import TokenPrompts
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.replicas import default_replicas, load_replicas
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.evaluation.sampler_choice import load_sampler, resolve_sampler, sampler_versions
from verl_ispo.evaluation.training_cost import training_cost
from verl_ispo.evaluation.vllm_sampler import built_for_cpu, read_arguments
from verl_ispo.user_error import UserError


def local_source(options: EvaluationOptions, questions: Sequence[Question]) -> ResponseSource:
    """Resolve sampler, checkpoint and prompts.

    Raises:
        UserError: if the sampler cannot run here, or the checkpoint or its prompts cannot be used.
    """
    name, reason = resolve_sampler(options.sampler)
    arguments = read_arguments(options.vllm_args)
    if arguments and name != "vllm":
        raise UserError(f"--vllm-args {' '.join(options.vllm_args)}: the sampler is {name} ({reason}); leave them out")
    gpus_each = options.tensor_parallel_size if name == "vllm" and not built_for_cpu() else 0
    replicas = options.replicas or default_replicas(gpus_each)
    print(f"Sampler: {name} ({reason}), {replicas} replica{'s' if replicas > 1 else ''}", flush=True)
    checkpoint = resolve_checkpoint(options.model)
    prompts = TokenPrompts(str(checkpoint.folder), questions, options)
    load = partial(
        load_sampler, name, checkpoint.folder, prompts.context_tokens, options.tensor_parallel_size, arguments
    )
    given = {"arguments": arguments} if arguments else {}
    on_this_machine = replicas == 1 and not (gpus_each and os.environ.get("RAY_ADDRESS"))
    return ResponseSource(
        prompts=prompts,
        model={
            "path": options.model,
            "checkpoint_rule": checkpoint.rule,
            "step": checkpoint.step,
            "training": training_cost(options.model, checkpoint.step),
        },
        model_sha256=model_digest(checkpoint.folder),
        sampler={"name": name, "versions": sampler_versions(name), **given},
        load=load if on_this_machine else partial(load_replicas, load, replicas, gpus_each),
        gpus=replicas * gpus_each,
    )
