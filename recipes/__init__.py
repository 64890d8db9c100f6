"""Recipes of ActionLLM: what a person launches, and, in the packages within, what these share."""
