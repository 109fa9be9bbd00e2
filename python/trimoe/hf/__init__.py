"""Models of Hugging Face transformers whose experts trimoe holds: loading, quantisers, modules."""
