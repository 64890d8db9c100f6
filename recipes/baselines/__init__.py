"""Baselines: classifiers of the same recordings without a language model."""
