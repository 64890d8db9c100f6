"""Publishing a run: repository, model card, plain language model, demo."""
