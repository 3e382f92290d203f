"""What is asked: study files and requests, checked, and expanded to the work that they ask for."""
