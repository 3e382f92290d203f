"""What comes out: frames, results as they were, SQL written by people, files."""
