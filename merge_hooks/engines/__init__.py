"""The stream into an engine (vLLM, transformers), and the proof that the engine computes with it."""
