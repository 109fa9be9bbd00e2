"""The parts of `examples/train_tiny.py`: text, tokenizer, training loop, measurements."""
