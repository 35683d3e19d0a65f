"""The machine beneath: files, locks, terminals, processor cores."""
