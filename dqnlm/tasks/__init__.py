"""The kinds of work that a run can have: continue a text, answer prompts, learn from a log, play an environment."""
