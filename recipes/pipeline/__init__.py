"""The parts of `run_line.py`: the stages, their settings, and the plan."""
