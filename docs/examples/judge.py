"""Rates replies to the requests of make_log.py: 1 for the best reply, else 0."""

BEST = {"is broken": "A new", "came late": "We pay", "is the wrong size": "We swap"}


def score(prompts, completions, references):
    """Lists of texts in, one number for each completion out."""
    return [
        float(any(problem in prompt and reply.strip().startswith(best) for problem, best in BEST.items()))
        for prompt, reply in zip(prompts, completions, strict=True)
    ]
