"""Models that the pipeline starts from: visual encoders, small language models, small LVLMs."""
