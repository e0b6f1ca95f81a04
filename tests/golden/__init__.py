"""Runs on record with figures, samples and weights: a change that should change nothing is seen to change nothing."""
