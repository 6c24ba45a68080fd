"""One step: loss, optimiser, schedule."""
