"""Text from a model, and traces of its routing."""
