"""Beyond the leading order in 1/n: the next coefficients of V4 and of the mean kernel, and the third cumulant.

``basis`` says which means over the neurons are followed and what a set of functions must give; ``lattice_waves`` and
``wick_powers`` are the two sets; ``expansion`` carries their moments through one layer; ``solution`` goes through the
network and puts the entries of all inputs together; ``law`` makes of it the law of one network's kernel.
"""

from eftcore.theory.next_order.solution import NextOrder, next_order

__all__ = ["NextOrder", "next_order"]
