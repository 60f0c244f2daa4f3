"""Format 1 of the rollout dump, which is ours: what a training leaves in ``DUMP_DIR`` for ``verl-ispo report``.

::

    DUMP_DIR/run.json                        versions, seeds, config of the last start
    DUMP_DIR/outcomes/step_000001_0.jsonl    every step: one line per prompt
    DUMP_DIR/rollouts/step_000001_0.jsonl    step 1 and every dump_every-th: one line per prompt, with all its rollouts

A file is named by step and by local update, which is 0 unless ``parameter_sync_step`` makes several per step. It is
written under a temporary name and renamed when it is complete, so that a reader never sees half of it. A step that a
resumed run repeats replaces its file.

A line of ``outcomes`` has ``format``, ``step``, ``local_update``, ``prompt_id``, ``uid``, ``rollouts`` and ``right``
(how many of them are correct). ``prompt_id`` is a hash of the prompt's token ids: the same prompt has the same one at
every step and in every run with that tokenizer and template. ``uid`` is verl's, new each time a prompt is drawn.

A line of ``rollouts`` has ``format``, ``step``, ``local_update``, ``prompt_id`` and ``uid`` too, and

- ``outcome``: ``all_wrong``, ``mixed`` or ``all_right``; ``prompt_text``; ``ground_truth`` (`null` if there is none);
- ``estimator``: verl's ``adv_estimator`` (only under ``ispo`` is the composite trained on); ``config``: the settings
  of the method;
- ``rollouts``: one object each, with
    - ``key``; one entry per response token in ``token_ids``, ``token_texts``, ``response_mask`` (0: not written by
      the policy), ``log_prob``, ``ref_log_prob``, ``entropy`` (nats, six decimals; `null` if not finite);
    - ``prompt_text``, only for a rollout whose prompt has a hint that the group's has not (Scaf-GRPO);
    - ``entropy_filter``, ``drift_filter``, ``critical``: positions of the tokens in each set; ``critical_terms``: what
      each critical token adds to the mean of eq. 7, in the order of the positions;
    - ``lead_in_start``, ``answer_start``, ``answer_end`` and ``trace_end`` (both one past), all `null` without an
      answer: of the A and T that ``answer_span`` and ``trace_end`` in ``config`` say. ``trace_end`` is
      ``lead_in_start``, or less where T ends before a statement of the answer (files of earlier versions lack it);
      ``answer_log_prob`` and ``ablated_answer_log_prob``: the answer's tokens with that trace and without it. The
      former are those of ``log_prob``, unless T ends before ``lead_in_start``;
    - ``score``, ``correct``, ``ifd`` (nats per token), ``token_reward``; ``parts``: ``outcome``, ``ifd``, ``token`` and
      ``missing_answer`` as they are weighted into eq. 8, guards included; ``composite``: their sum;
      ``training_reward``: what the advantage was computed from (the composite, or the score alone under another
      estimator); ``advantage``.
    - with ``all_wrong_groups=right_answer`` also ``right_answer_gain``: how much the trace raises the log-prob of the
      ground truth (nats per token), `null` where it was not scored; the part ``ifd`` holds it weighted.

A token's text is that of the token alone; where a character is spread over several tokens, the last of them holds it.
Size: 40 to 80 bytes per token (more for short responses), so 4 prompts x 8 rollouts x 2000 tokens are some 3 MB per
dumped step.
"""

from __future__ import annotations

DUMP_FORMAT = 1
OUTCOMES = ("all_wrong", "mixed", "all_right")
