"""The `minicnn` command: main.py dispatches, and each command is a file of its own with ABOUT, arguments and run."""
