"""What a training run leaves behind, and how it is read: verl's metric log and ISPO's rollout dump."""
