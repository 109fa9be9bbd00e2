"""What policies could have done: optima, gaps, placements from recorded traces."""
