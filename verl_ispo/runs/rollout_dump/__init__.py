"""The rollout dump: its format, the trainer's writer, and a reader that needs neither torch nor verl."""
