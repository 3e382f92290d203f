"""Beyond the leading order in 1/n: the next coefficients of V4 and of the mean kernel, and the third cumulant.

For functions u_i of one neuron's N preactivations, let m_i = (1/n) sum over neurons of u_i. Given a layer, the neurons
of the next are independent, phi' = phi + epsilon N(0, Q) with the common Q = C_b + C_W (1/n) sum sigma sigma^T, so that

    E[u_i(phi') | phi] = exp(h sum_q Q_q D_q) u_i (phi),   h = epsilon^2,

with q over pairs of inputs, D_aa u = (1/2) d_a^2 u and D_ab u = d_a d_b u (eq. 10.1). Where D_q u_i, the products
u_i u_j and sigma sigma^T are combinations of functions whose means are known, the means and covariances of the next
layer are functions of the deviations x of m from its value at infinite width alone.

``drift`` carries the moments of x through a layer, exactly in each order of 1/n. There are two sets of functions:
``wick_powers`` with ``expansion`` for activations that grow, and ``adapted`` with ``adapted_expansion`` for smooth
bounded ones, whose leading order ``densities`` has on a ``grid``. ``solution`` goes through the network and puts the
entries of all inputs together; ``law`` makes of it the law of one network's kernel. Equation numbers are those of
docs/theory.md.
"""

from eftcore.theory.next_order.solution import NextOrder, next_order

__all__ = ["NextOrder", "next_order"]
