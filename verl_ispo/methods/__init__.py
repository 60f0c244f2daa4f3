"""Other methods of the table, one a module: pure torch, each rule in a small function named as its paper names it."""
