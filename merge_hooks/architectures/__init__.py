"""What transformers makes of a configuration: which tensors a model has, and what they are called in files."""
