"""What each preset does to a group of rollouts: its advantages, shown in a terminal, in the docs and in the report."""
