"""The classification metric as a module of `evaluate`."""
