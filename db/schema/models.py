"""Tables of the results database (columns explained in docs/data-dictionary.md).

Numbers that may be NaN or infinite come in two columns: ``x`` holds a finite number or NULL, ``x_nonfinite`` is NULL or
one of 'nan', 'inf', '-inf'. Runs that succeeded are never changed; a comparison is derived from two such runs and may
be recorded again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, get_args

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.schema.types import NONFINITE, Json, UTCDateTime, is_finite, utc_now
from eftcore.quantities import COMPARED, MEASURED, QUANTITIES
from eftcore.specs import Block, Normalisation

TRAJECTORIES = tuple(QUANTITIES)
AIMED_AT = tuple(quantity.name for quantity in QUANTITIES.values() if quantity.aimed_at)
JUDGED = tuple(quantity.name for quantity in COMPARED)
WITH_ERRORS = (*AIMED_AT, *(quantity.name for quantity in MEASURED))
_TRIPLES = (quantity.name for quantity in QUANTITIES.values() if quantity.over == "triples")
_THIRD_AXIS = " ".join(f"WHEN '{name}' THEN n_entries" for name in _TRIPLES)
ASKED_KINDS = ("simulation", "prediction", "measurement")
"""Kinds of runs that studies ask for."""
KINDS = (*ASKED_KINDS, "check")
RUN_STATUSES = ("pending", "running", "succeeded", "failed", "stale")
STOP_REASONS = ("met", "cap", "count")
WINDOW_STATUSES = ("bounded", "beyond", "undecided", "too_noisy")
WIDTH_STATUSES = ("from", "never", "unknown")
BLOCKS = get_args(Block)
NORMALISATIONS = get_args(Normalisation)


class Base(DeclarativeBase):
    """Base class of the tables. It names every constraint, so that migrations can refer to it on both databases."""

    metadata = sa.MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: sa.Double(),
        str: sa.Text(),
        datetime: UTCDateTime(),
        dict[str, Any]: Json,
        bytes: sa.LargeBinary(),
    }


def _choice(name: str, values: tuple[str, ...]) -> sa.Enum:
    """A text column restricted to some values by a check constraint; adding a value later needs no ALTER TYPE."""
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def _flag(name: str) -> sa.Boolean:
    return sa.Boolean(create_constraint=True, name=name)


def _marker(name: str) -> sa.Enum:
    return sa.Enum(*NONFINITE, name=name, native_enum=False, create_constraint=True, length=4)


def _finite(column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(is_finite(column), name=f"{column}_is_finite")


def _one_form(column: str, *, required: bool) -> tuple[sa.CheckConstraint, ...]:
    """Checks that a number is finite or marked as not finite, never both; exactly one of the two when required."""
    rule = (
        f"({column} IS NULL) = ({column}_nonfinite IS NOT NULL)"
        if required
        else f"{column} IS NULL OR {column}_nonfinite IS NULL"
    )
    return _finite(column), sa.CheckConstraint(rule, name=f"{column}_has_one_form")


def _reference(target: str, *, owner: bool, index: bool = False, **options: Any) -> Mapped[int]:
    """A foreign key. If its target is the owner of the row, the row is deleted together with it."""
    return mapped_column(sa.ForeignKey(target, ondelete="CASCADE" if owner else None), index=index, **options)


class Study(Base):
    """A study file as it was run. A study of the same name with other contents has another row."""

    __tablename__ = "studies"
    __table_args__ = (
        sa.CheckConstraint("runs_asked >= 1", name="asks_for_runs"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    spec: Mapped[dict[str, Any]]
    runs_asked: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=utc_now())


class Kernel(Base):
    """An input kernel K^0, identified by its matrix; it keeps the label with which it was recorded first."""

    __tablename__ = "input_kernels"
    __table_args__ = (
        sa.CheckConstraint("n_inputs >= 1", name="has_inputs"),
        _finite("variance"),
        _finite("correlation"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    label: Mapped[str]
    n_inputs: Mapped[int]
    variance: Mapped[float]
    correlation: Mapped[float | None]
    matrix: Mapped[list[list[float]]] = mapped_column(Json)


class Configuration(Base):
    """A model at one input kernel: what a prediction and a simulation have in common.

    The columns from ``normalisation`` on are NULL for a block with one matrix.
    """

    __tablename__ = "model_configurations"
    __table_args__ = (
        *(_finite(name) for name in ("weight_variance", "bias_variance", "epsilon", "total_time")),
        *(_finite(name) for name in ("hidden_ratio", "hidden_weight_variance", "hidden_bias_variance")),
        sa.CheckConstraint("depth >= 1", name="has_layers"),
        sa.CheckConstraint("(block = 'two_matrix') = (hidden_ratio IS NOT NULL)", name="hidden_of_its_block"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    kernel_id: Mapped[int] = _reference("input_kernels.id", owner=False, index=True)
    activation: Mapped[str] = mapped_column(index=True)
    weight_variance: Mapped[float]
    bias_variance: Mapped[float]
    epsilon: Mapped[float]
    depth: Mapped[int]
    total_time: Mapped[float]
    block: Mapped[str] = mapped_column(_choice("block", BLOCKS), server_default=BLOCKS[0])
    normalisation: Mapped[str | None] = mapped_column(_choice("normalisation", NORMALISATIONS))
    hidden_ratio: Mapped[float | None]
    hidden_weight_variance: Mapped[float | None]
    hidden_bias_variance: Mapped[float | None]


class Run(Base):
    """One simulation, prediction, measurement or check: what was computed, how it went and where it came from.

    A measurement is of the next order in 1/n, from simulations of several ``widths`` with ``samples`` networks together
    and the leading order; its ``spec`` names their digests. A check is of a user's torch module of this ``width``, made
    ``samples`` times; its configuration is what the module was compared with. db/writing/lifecycle.py says how the
    status of a run may change. ``extends_run_id`` is a smaller simulation all of whose shards are in this run too.
    ``worker_seconds`` is the sum of the times of all shards, ``elapsed_seconds`` the time from the first start to the
    last end; it is NULL where an older version recorded the run.
    """

    __tablename__ = "runs"
    __table_args__ = (
        sa.CheckConstraint(
            "(kind = 'prediction' AND closure IS NOT NULL AND quadrature IS NOT NULL AND width IS NULL)"
            " OR (kind = 'simulation' AND width IS NOT NULL AND samples IS NOT NULL AND closure IS NULL)"
            " OR (kind = 'measurement' AND widths IS NOT NULL AND samples IS NOT NULL AND width IS NULL"
            " AND closure IS NULL)"
            " OR (kind = 'check' AND width IS NOT NULL AND samples IS NOT NULL AND widths IS NULL"
            " AND closure IS NULL)",
            name="fields_of_its_kind",
        ),
        sa.CheckConstraint("(status = 'failed') = (error_message IS NOT NULL)", name="failure_has_message"),
        sa.CheckConstraint("width >= 1 AND samples >= 1", name="has_networks"),
        _finite("rtol"),
        _finite("worker_seconds"),
        _finite("elapsed_seconds"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(_choice("kind", KINDS))
    status: Mapped[str] = mapped_column(_choice("status", RUN_STATUSES), index=True)
    digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    configuration_id: Mapped[int] = _reference("model_configurations.id", owner=False, index=True)
    algorithm_version: Mapped[int]
    spec: Mapped[dict[str, Any]]

    closure: Mapped[str | None]
    closure_order: Mapped[int | None]
    quadrature: Mapped[str | None]
    nodes: Mapped[int | None]
    rtol: Mapped[float | None]
    step: Mapped[str | None]
    continuous: Mapped[bool | None] = mapped_column(_flag("continuous"))
    next_order: Mapped[bool | None] = mapped_column(_flag("next_order"))
    converged: Mapped[bool | None] = mapped_column(_flag("converged"))
    details: Mapped[dict[str, Any] | None] = mapped_column(Json)

    ensemble_digest: Mapped[str | None] = mapped_column(sa.String(64), index=True)
    width: Mapped[int | None]
    widths: Mapped[str | None]
    samples: Mapped[int | None] = mapped_column(sa.BigInteger)
    shards: Mapped[list[list[int]] | None] = mapped_column(Json)
    seed: Mapped[int | None] = mapped_column(sa.BigInteger)
    estimator: Mapped[str | None]
    sampler: Mapped[str | None]
    dtype: Mapped[str | None]
    extends_run_id: Mapped[int | None] = mapped_column(sa.ForeignKey("runs.id", ondelete="SET NULL"), index=True)
    stopped_because: Mapped[str | None] = mapped_column(_choice("stopped_because", STOP_REASONS))

    error_message: Mapped[str | None]
    git_commit: Mapped[str | None]
    git_dirty: Mapped[bool | None] = mapped_column(_flag("git_dirty"))
    versions: Mapped[dict[str, Any] | None] = mapped_column(Json)
    host: Mapped[str | None]
    device: Mapped[str | None]
    python: Mapped[str | None]
    flow_run_id: Mapped[str | None]
    task_run_id: Mapped[str | None]
    started_at: Mapped[datetime | None]
    worker_seconds: Mapped[float | None]
    elapsed_seconds: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(server_default=utc_now())


class StudyRun(Base):
    """A use of a run by a study; a run is shared by all studies that ask for the same result."""

    __tablename__ = "study_runs"

    study_id: Mapped[int] = _reference("studies.id", owner=True, primary_key=True)
    run_id: Mapped[int] = _reference("runs.id", owner=True, index=True, primary_key=True)


class StudyAnnotation(Base):
    """What users wrote about a study, apart from what was recorded of it: its title in place of the name, and notes.

    An archived study stays with all its results; lists of studies leave it out.
    """

    __tablename__ = "study_annotations"

    study_id: Mapped[int] = _reference("studies.id", owner=True, primary_key=True)
    title: Mapped[str | None]
    notes: Mapped[str | None]
    archived: Mapped[bool] = mapped_column(_flag("archived"))


class StudyTag(Base):
    """A word by which users find a study."""

    __tablename__ = "study_tags"
    __table_args__ = ({"sqlite_with_rowid": False},)

    study_id: Mapped[int] = _reference("studies.id", owner=True, primary_key=True)
    tag: Mapped[str] = mapped_column(sa.String(80), primary_key=True)


class SavedView(Base):
    """A view of the explorer that a user saved: a page with the query string of its address, where all its state is."""

    __tablename__ = "saved_views"

    name: Mapped[str] = mapped_column(sa.String(80), primary_key=True)
    page: Mapped[str]
    query: Mapped[str]


class KernelTrajectory(Base):
    """One quantity of one run at all recorded layers, in full precision: raw little-endian float64, row-major.

    Shape (n_layers, n_entries, n_entries): n_entries is N for quantities over inputs and P = N (N + 1) / 2 for those
    over pairs; T has one axis of P more. Entries of D, K2 and T that are not known are NaN.
    """

    __tablename__ = "kernel_trajectories"
    __table_args__ = (
        sa.CheckConstraint(
            f"length(data) = 8 * n_layers * n_entries * n_entries * CASE quantity {_THIRD_AXIS} ELSE 1 END",
            name="data_fits_shape",
        ),
        sa.CheckConstraint("se IS NULL OR length(se) = length(data)", name="se_fits_shape"),
        *_one_form("numerical_error", required=False),
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", TRAJECTORIES), primary_key=True)
    n_layers: Mapped[int]
    n_entries: Mapped[int]
    numerical_error: Mapped[float | None]
    numerical_error_nonfinite: Mapped[str | None] = mapped_column(_marker("numerical_error_nonfinite"))
    data: Mapped[bytes]
    se: Mapped[bytes | None]


class TrajectoryValue(Base):
    """One component at one recorded layer, for SQL; db/schema/components.py says which components are stored."""

    __tablename__ = "trajectory_values"
    __table_args__ = (
        *_one_form("value", required=True),
        *_one_form("se", required=False),
        {"sqlite_with_rowid": False},
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", TRAJECTORIES), primary_key=True)
    component: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    se: Mapped[float | None]
    value_nonfinite: Mapped[str | None] = mapped_column(_marker("value_nonfinite"))
    se_nonfinite: Mapped[str | None] = mapped_column(_marker("se_nonfinite"))


class KernelQuantile(Base):
    """A quantile of one entry G_aa over the networks of a simulation or a check, at one recorded layer.

    ``low`` and ``high`` bound it with 95 %; each is NULL where there are too few networks for it. Samples of versions
    without histograms, and inputs that are 0, have no rows. db/schema/components.py says which are stored. Rows may be
    added to a run that was recorded before there was this table.
    """

    __tablename__ = "kernel_quantiles"
    __table_args__ = (
        *(_finite(name) for name in ("value", "low", "high")),
        sa.CheckConstraint("probability > 0 AND probability < 1", name="probability_inside"),
        sa.CheckConstraint("low <= value AND value <= high", name="bounds_in_order"),
        {"sqlite_with_rowid": False},
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    component: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    probability: Mapped[float] = mapped_column(primary_key=True)
    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]


class SimulationPrecision(Base):
    """How well a simulation knows one quantity, and the target that it was run for, if any.

    ``relative_se`` is ||se|| / ||estimate|| (Frobenius) at the last recorded layer, ``largest_relative_se`` the
    largest over the layers where the estimate exceeds twice its error. ``reliable_share`` is the share of recorded
    layers whose standard error can be trusted, ``degrees_of_freedom`` the smallest (NULL: as good as infinite).
    """

    __tablename__ = "simulation_precision"
    __table_args__ = (
        *_one_form("relative_se", required=False),
        *_one_form("largest_relative_se", required=False),
        *_one_form("reached", required=False),
        *(_finite(name) for name in ("target", "reliable_share", "degrees_of_freedom")),
        sa.CheckConstraint("(target IS NULL) = (target_kind IS NULL)", name="target_has_kind"),
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", AIMED_AT), primary_key=True)
    relative_se: Mapped[float | None]
    largest_relative_se: Mapped[float | None]
    reliable_share: Mapped[float | None]
    degrees_of_freedom: Mapped[float | None]
    target_kind: Mapped[str | None]
    target: Mapped[float | None]
    reached: Mapped[float | None]
    relative_se_nonfinite: Mapped[str | None] = mapped_column(_marker("relative_se_nonfinite"))
    largest_relative_se_nonfinite: Mapped[str | None] = mapped_column(_marker("largest_relative_se_nonfinite"))
    reached_nonfinite: Mapped[str | None] = mapped_column(_marker("reached_nonfinite"))


class Claim(Base):
    """A worker process's claim to compute the result with this digest; it expires without a heartbeat."""

    __tablename__ = "claims"

    digest: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    task: Mapped[str]
    holder: Mapped[str] = mapped_column(index=True)
    flow_run_id: Mapped[str | None]
    task_run_id: Mapped[str | None]
    claimed_at: Mapped[datetime] = mapped_column(server_default=utc_now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=utc_now())
    expires_at: Mapped[datetime]


class AlgorithmVersion(Base):
    """The newest version of each algorithm that has written to this database; runs of older versions are superseded."""

    __tablename__ = "algorithm_versions"

    algorithm: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class ComparisonRow(Base):
    """A comparison of a prediction with a reference of the same configuration, which is a run of any kind."""

    __tablename__ = "comparisons"
    __table_args__ = (
        sa.UniqueConstraint("prediction_run_id", "reference_run_id"),
        sa.CheckConstraint("prediction_run_id <> reference_run_id", name="of_two_runs"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    prediction_run_id: Mapped[int] = _reference("runs.id", owner=True)
    reference_run_id: Mapped[int] = _reference("runs.id", owner=True, index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(server_default=utc_now())


class ErrorMetric(Base):
    """Error of the theory at one layer; ``defined`` is false where the relative error has no meaning.

    error_high and resolution are NULL where they are infinite; all three bounds are NULL in rows of older versions.
    """

    __tablename__ = "error_metrics"
    __table_args__ = (
        *_one_form("error", required=False),
        *_one_form("error_se", required=False),
        *_one_form("absolute_error", required=True),
        *_one_form("absolute_error_se", required=False),
        *(_finite(name) for name in ("error_low", "error_high", "resolution")),
        sa.CheckConstraint("defined = (error IS NOT NULL OR error_nonfinite IS NOT NULL)", name="error_where_defined"),
        {"sqlite_with_rowid": False},
    )

    comparison_id: Mapped[int] = _reference("comparisons.id", owner=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", WITH_ERRORS), primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    defined: Mapped[bool] = mapped_column(_flag("defined"))
    error: Mapped[float | None]
    error_se: Mapped[float | None]
    absolute_error: Mapped[float | None]
    absolute_error_se: Mapped[float | None]
    error_low: Mapped[float | None]
    error_high: Mapped[float | None]
    resolution: Mapped[float | None]
    error_nonfinite: Mapped[str | None] = mapped_column(_marker("error_nonfinite"))
    error_se_nonfinite: Mapped[str | None] = mapped_column(_marker("error_se_nonfinite"))
    absolute_error_nonfinite: Mapped[str | None] = mapped_column(_marker("absolute_error_nonfinite"))
    absolute_error_se_nonfinite: Mapped[str | None] = mapped_column(_marker("absolute_error_se_nonfinite"))


class ValidityWindow(Base):
    """The interval that holds t*(tolerance), in t = epsilon^2 * layer; a missing end is explained by the status.

    ``confidence`` is the probability that all statements of the window hold together, NULL in rows of older versions;
    ``numerical_error`` is the relative numerical error of the compared theory.
    """

    __tablename__ = "validity_windows"
    __table_args__ = (
        _finite("tolerance"),
        *(
            _finite(name)
            for name in ("resolved_from", "certified_until", "refuted_from", "numerical_error", "confidence")
        ),
        sa.CheckConstraint(
            "(status = 'bounded') = (refuted_from IS NOT NULL)"
            " AND (status <> 'too_noisy' OR (certified_until IS NULL AND resolved_from IS NULL))"
            " AND (status <> 'beyond' OR certified_until IS NOT NULL)",
            name="ends_of_its_status",
        ),
        sa.Index(None, "quantity", "tolerance"),
        {"sqlite_with_rowid": False},
    )

    comparison_id: Mapped[int] = _reference("comparisons.id", owner=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", WITH_ERRORS), primary_key=True)
    tolerance: Mapped[float] = mapped_column(primary_key=True)
    resolved_from: Mapped[float | None]
    certified_until: Mapped[float | None]
    refuted_from: Mapped[float | None]
    numerical_error: Mapped[float | None]
    confidence: Mapped[float | None]
    status: Mapped[str] = mapped_column(_choice("status", WINDOW_STATUSES))


class WidthWindow(Base):
    """The width n* from which on a prediction stays within a tolerance at one recorded layer, in neurons per layer.

    It follows from the reference, a prediction of the exact closure with its next order in 1/n, by which this itself is
    judged too (eftcore.width_windows). The widths are NULL unless the status is "from". What simulations say of widths
    follows from their error_metrics, in v_width_windows.
    """

    __tablename__ = "width_windows"
    __table_args__ = (
        *(_finite(name) for name in ("tolerance", "width", "width_low", "width_high")),
        sa.CheckConstraint(
            "(status = 'from') = (width IS NOT NULL) AND (status = 'from') = (width_low IS NOT NULL)"
            " AND (status = 'from') = (width_high IS NOT NULL)",
            name="widths_of_its_status",
        ),
        sa.CheckConstraint("1 <= width_low AND width_low <= width AND width <= width_high", name="widths_in_order"),
        sa.Index(None, "quantity", "tolerance"),
        {"sqlite_with_rowid": False},
    )

    prediction_run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    reference_run_id: Mapped[int] = _reference("runs.id", owner=True, index=True, primary_key=True)
    quantity: Mapped[str] = mapped_column(_choice("quantity", JUDGED), primary_key=True)
    tolerance: Mapped[float] = mapped_column(primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[float | None]
    width_low: Mapped[float | None]
    width_high: Mapped[float | None]
    status: Mapped[str] = mapped_column(_choice("status", WIDTH_STATUSES))


class ModuleCheck(Base):
    """What a check found of a module, all its blocks together.

    ``module`` is its class and ``module_digest`` that of its printed form; ``factory`` is the function that makes it
    and its file, whose content has the ``factory_digest``. ``guessed`` says that the network it was compared with was
    found and not given. ``first_deviating_layer`` is the one that the first block which deviates makes, or NULL.
    """

    __tablename__ = "module_checks"
    __table_args__ = (
        sa.CheckConstraint("p_value BETWEEN 0 AND 1", name="p_value_is_one"),
        sa.CheckConstraint("(factory IS NULL) = (factory_digest IS NULL)", name="factory_has_digest"),
        sa.CheckConstraint("first_deviating_layer >= 1", name="deviates_at_a_layer"),
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    module: Mapped[str]
    module_digest: Mapped[str] = mapped_column(sa.String(64))
    factory: Mapped[str | None]
    factory_digest: Mapped[str | None] = mapped_column(sa.String(64))
    guessed: Mapped[bool] = mapped_column(_flag("guessed"))
    p_value: Mapped[float]
    first_deviating_layer: Mapped[int | None]
    verdict: Mapped[str]


class CheckedBlockRow(Base):
    """The verdict on one block of a checked module; ``layer`` is the one that it makes.

    The variances are fitted with the epsilon of the configuration, and ``fitted_epsilon`` with its weight variance.
    ``fitted_bias_variance`` is NULL for one input, ``fitted_epsilon`` where the block adds nothing; ``diagnosis`` names
    mistakes that would explain the weight variance.
    """

    __tablename__ = "checked_blocks"
    __table_args__ = (
        sa.CheckConstraint("p_value BETWEEN 0 AND 1", name="p_value_is_one"),
        *(_finite(name) for name in ("largest_z", "fitted_weight_variance", "fitted_weight_variance_se")),
        *(_finite(name) for name in ("fitted_bias_variance", "fitted_bias_variance_se")),
        *(_finite(name) for name in ("fitted_epsilon", "fitted_epsilon_se")),
        {"sqlite_with_rowid": False},
    )

    run_id: Mapped[int] = _reference("runs.id", owner=True, primary_key=True)
    layer: Mapped[int] = mapped_column(primary_key=True)
    block_name: Mapped[str]
    p_value: Mapped[float]
    largest_z: Mapped[float]
    deviates: Mapped[bool] = mapped_column(_flag("deviates"))
    fitted_weight_variance: Mapped[float]
    fitted_weight_variance_se: Mapped[float]
    fitted_bias_variance: Mapped[float | None]
    fitted_bias_variance_se: Mapped[float | None]
    fitted_epsilon: Mapped[float | None]
    fitted_epsilon_se: Mapped[float | None]
    diagnosis: Mapped[str | None]
