"""Simulated people, motions, sensors and long videos, and text about bodies for the small language model."""
