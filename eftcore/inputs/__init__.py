"""What comes in from outside: fields of specs, tables of numbers and their files, and how large they may be."""
