"""Stage 1 for skeletons, videos and visual events, and the parts that the training of stage 2 is made of."""
