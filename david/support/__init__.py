"""Files, seeds, progress, loops and costs: knows nothing of the paper."""
