"""The `minicnn` command; main.py says what it can do."""
