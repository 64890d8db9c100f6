"""How well a recogniser reads recordings that differ from those it was trained on."""
