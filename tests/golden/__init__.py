"""Runs whose figures, samples and weights are on record, so that a change that should change nothing is seen to change nothing."""
