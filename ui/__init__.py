"""The explorer of results, and the reports that are made of them."""
