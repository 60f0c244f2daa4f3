"""``verl-ispo probe``: which regime a model starts in, before a training (rules, thresholds and words are ours)."""
