"""Classifiers that read the same recordings without a language model."""
