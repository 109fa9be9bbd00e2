"""What drives a policy over a model: one loop, and the clock of the cost core that it decides by."""
