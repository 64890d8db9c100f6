"""Benchmarks of time and memory, each with an alternative to compare with."""
