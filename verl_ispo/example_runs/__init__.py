"""What the examples share: their steps, their command lines, several runs at a time."""
