"""The stream into an engine, and the proof that the engine computes with it: vLLM, transformers."""
