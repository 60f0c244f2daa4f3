"""Fixes to verl 0.9.1 that long runs need, independent of ISPO; each module says why, and where the fault is reported.

Each is to be removed once verl has its fix. `TrainerWorkarounds` hooks all of them into verl's trainer.
"""
