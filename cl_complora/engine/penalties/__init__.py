"""What is added to the loss of a task: distillation, EWC, losses of regions and of logits."""
