"""How large a study is, counted from its axes before they are expanded, and how long its simulations take.

A study that is too large is refused with its size and the limit; for a long study an estimate of the time is printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from eftcore.ensemble.shards import networks_in_shard
from eftcore.errors import InputError
from eftcore.inputs.sizes import LARGEST_ARRAY

if TYPE_CHECKING:
    from eftcore.specs import ResNet
    from flows.study.expansion import Study
    from flows.study.file import ModelGrid, StudyFile

MOST_TASKS = 1_000_000
"""Most tasks of one study: predictions, shards, merges of shards, comparisons and records."""

NEURONS_PER_SECOND = 1e9
"""Neuron updates (networks x depth x width x inputs) per second on a few fast processors; GPUs are faster."""

SECONDS_PER_TASK = 0.05
"""Least time that the administration of a task takes."""

DAY = 86_400
"""Seconds of a day; a warning is printed before a study that may take longer."""


class Size(NamedTuple):
    """The numbers that determine the cost of a simulation."""

    networks: int
    depth: int
    width: int
    n_inputs: int

    @property
    def shards(self) -> int:
        """Number of shards, each of which is a task."""
        return -(-self.networks // networks_in_shard(self.depth, self.width, self.n_inputs))

    @property
    def work(self) -> int:
        """Number of neuron updates of the simulation."""
        return self.networks * self.depth * self.width * self.n_inputs


def refuse_too_many_tasks(file: StudyFile) -> None:
    """Raises InputError where the grid has too many points, counted from the lengths of its lists."""
    kernels = sum(section.inputs().total() for section in file.kernel)
    theories = sum(len(choice.orders) for choice in file.closures) + (file.reference is not None)
    models = sum(grid.count for grid in file.model)
    per_kernel = sum(grid.count * (theories + len(file.widths_of(grid)) * (theories + 3)) for grid in file.model)
    if kernels * per_kernel > MOST_TASKS:
        raise InputError(
            f"{shown(models)} models times {shown(kernels)} input kernels are {shown(models * kernels)}"
            f" configurations with {shown(kernels * per_kernel)} tasks, more than the {MOST_TASKS} of one study",
            remedy="shorten the lists, or make several studies",
        )


def refuse_too_large(file: StudyFile, grids: Sequence[tuple[ModelGrid, ResNet]]) -> None:
    """Raises InputError where kernels are too large or simulations too many, before any of them are made."""
    inputs = sum((section.inputs() for section in file.kernel), Counter[int]())
    held = sum(8 * n_inputs**2 * count for n_inputs, count in inputs.items())
    if held > LARGEST_ARRAY:
        raise InputError(
            f"{inputs.total()} kernels of up to {max(inputs)} inputs take {held / 1e9:.3g} GB, more than the"
            f" {LARGEST_ARRAY / 1e9:g} GB of one study",
            place="kernel",
            remedy="give fewer, or make several studies",
        )
    models = Counter((file.samples_of(grid), model.depth, file.widths_of(grid)) for grid, model in grids)
    simulations: Counter[Size] = Counter()
    for (networks, depth, widths), count in models.items():
        for width in widths:
            for n_inputs, repeated in inputs.items():
                simulations[Size(networks, depth, width, n_inputs)] += count * repeated
    refuse_too_many_shards(simulations)


def refuse_too_many_shards(simulations: Counter[Size]) -> None:
    """Raises InputError where these numbers of simulations of each size need too many tasks."""
    shards = sum(count * size.shards for size, count in simulations.items())
    if shards > MOST_TASKS:
        networks = max(size.networks for size in simulations)
        raise InputError(
            f"the simulations take {shown(shards)} shards, more than the {MOST_TASKS} tasks of one study",
            place="samples",
            value=networks,
            remedy="simulate fewer networks, or make several studies",
        )


def warning(study: Study) -> str | None:
    """The warning for a study that may take more than a day; None for a shorter one."""
    sizes = [item.size for item in study.simulations.values()]
    work = sum(size.work for size in sizes)
    tasks = len(study.predictions) + len(study.comparisons) + len(study.theory_comparisons)
    tasks += sum(size.shards + 2 for size in sizes)
    seconds = work / NEURONS_PER_SECOND + tasks * SECONDS_PER_TASK
    if seconds < DAY:
        return None
    return (
        f"study {study.name}: {shown(tasks)} tasks with {shown(work)} neuron updates take about"
        f" {seconds / DAY:.2g} days at {NEURONS_PER_SECOND:.0e} updates a second, less what is stored already"
    )


def shown(number: int) -> str:
    """A count as readable text.

    >>> shown(1_000_000), shown(1_234_567_890), shown(10**400)
    ('1000000', '1.23e+9', '1.00e+400')
    """
    return str(number) if number < 10**9 else f"{Decimal(number):.2e}"
