"""Judging theories: errors and validity windows in depth, residuals, sources, Wick orders, exact statements."""
