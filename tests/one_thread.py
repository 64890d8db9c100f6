"""Imported before NumPy and torch: tests share the cores by processes (-n), and models this small are slower on threads."""

import os

# For the processes that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"
