"""Expectations under a Gaussian law: closed forms, quadrature, Hermite and Wick algebra, fourth moments."""
