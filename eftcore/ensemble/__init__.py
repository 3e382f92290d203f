"""Monte Carlo ensembles of finite-width networks: samplers, estimators, standard errors."""

import os

from eftcore.ensemble.sample import Sample, sample_digest
from eftcore.ensemble.shards import Attained, attained, reached
from eftcore.ensemble.simulation import simulate

__all__ = ["Attained", "Sample", "attained", "reached", "sample_digest", "simulate"]

# Idle OpenMP threads of torch and numba must sleep instead of spinning: with other processes on the same cores,
# spinning cost ten times the work itself. The runtime reads this variable once, when simulate first loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
