"""What a long run needs of verl 0.9.1 and has nothing to do with ISPO; each module says why, and where it is reported.

To be taken out one by one when verl has it. `TrainerWorkarounds` hooks all of them into verl's trainer.
"""
