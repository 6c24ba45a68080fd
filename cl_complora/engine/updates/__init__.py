"""What a task may do to the weights: factors, the subspaces they stay in, experts, how they are merged."""
