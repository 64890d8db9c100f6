"""Simulated people, motions, sensors and long videos; and text about bodies, to pretrain a small language model."""
