"""Stage 1 for skeletons, videos and events, and parts of the training of stage 2."""
