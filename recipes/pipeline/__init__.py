"""What `run_line.py` composes: the stages, their settings, and the plan that it shows."""
