"""Measurements of speed, each against a named alternative."""
