"""Beyond the leading order in 1/n: the next coefficients of V4 and of the mean kernel, and the third cumulant.

``functions`` says what is followed over depth (means of functions over the neurons) and what a family of functions must
give; ``trigonometric`` and ``wick_powers`` are the two families; ``expansion`` holds the equations and solves them.
"""
