"""Metrics of recognition, of timelines and of agreement between raters; plots of them."""
