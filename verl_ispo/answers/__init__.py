"""The final answer in a text, and the ground truth that it is compared with: the standard library alone."""
