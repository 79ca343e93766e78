"""What is written down of runs and read again: event logs and their sums, the journal, locks, quotas, anchors."""
