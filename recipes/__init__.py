"""The recipes of ActionLLM: modules to launch, and packages of what they share."""
