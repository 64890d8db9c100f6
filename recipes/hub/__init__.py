"""From a run to a repository, a page, a served model, a demo."""
