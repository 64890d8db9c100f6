"""Metrics of classification, as a module of `evaluate`."""
