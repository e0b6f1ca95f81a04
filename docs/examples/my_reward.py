def score(prompts, completions, references):
    """The share of the words that begin with a vowel, one number for each completion."""
    words = [text.split() for text in completions]
    return [sum(word[0] in "aeiouAEIOU" for word in text) / max(1, len(text)) for text in words]
