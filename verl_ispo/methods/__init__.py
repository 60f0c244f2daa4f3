"""The methods of the comparison, one module each: pure torch, each rule in a small function named as in its paper."""
