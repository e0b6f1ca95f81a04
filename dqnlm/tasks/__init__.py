"""The kinds of tasks: continue a text, answer prompts, learn from a log, play an environment."""
