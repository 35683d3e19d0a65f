"""What watches over a run: progress, stalls, memory, signals, and diagnostics of the training itself."""
