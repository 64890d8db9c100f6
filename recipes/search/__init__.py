"""Search: an index of recordings by their class probabilities, and queries."""
