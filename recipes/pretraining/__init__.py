"""Models that are trained before a line: visual encoders, small language models, small LVLMs."""
