"""The final answer in a text, and the ground truth that it is held against: the standard library alone."""
