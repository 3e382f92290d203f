"""What goes in: results, the status of runs, and who is computing what."""
