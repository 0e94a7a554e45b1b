"""Drawn examples as the model takes them: tokens, prompts by the processor's rules, batches."""
