"""What watches over a run: progress, stalls, memory, signals, diagnostics of the training itself, and
the timeline of a step."""
