"""Commands that draw: a network, and what a trained one responds to."""
