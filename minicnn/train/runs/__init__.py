"""The files of a run: its folder, checkpoints, metrics, and pages of results."""
