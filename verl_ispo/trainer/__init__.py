"""ISPO at verl's hooks: advantage estimator, policy loss, and trainer modes over verl's V1 trainers."""
