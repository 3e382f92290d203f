"""What is concluded: errors and windows in depth, residuals, sources, Wick orders, exact statements."""
