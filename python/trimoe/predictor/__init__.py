"""What the next steps will need, from what the last ones needed."""
