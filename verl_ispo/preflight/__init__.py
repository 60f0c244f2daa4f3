"""What ``verl-ispo doctor`` checks of a composed config without starting anything: one module per concern.

Each check is a function over the composed config that yields `Finding`s. Nothing here starts Ray, loads weights or
touches a network.
"""
