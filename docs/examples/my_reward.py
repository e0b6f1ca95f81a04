def score(prompts, completions, references):
    """1 for each completion that speaks of love, else 0."""
    return [float("love" in text) for text in completions]
