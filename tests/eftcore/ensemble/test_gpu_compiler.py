"""The graphics kernels compile for an A100 (sm_80) and an H100 or H200 (sm_90) without one.

Triton ships the whole compiler.
"""

from __future__ import annotations

import re
import subprocess

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import eftcore as eft
from eftcore.ensemble.gpu import engine as gpu_engine
from eftcore.ensemble.gpu import moments as gpu_moments
from eftcore.ensemble.gpu.kernel import simulate_block

DOUBLES = {"observed", "constants", "reference", "twin_moment", "susceptibility", "out", "symmetric", "ordered"}
DOUBLES |= {"kernel", "increment", "weight_variance"}
FLOATS = {"start", "twin_root"}
INTEGERS = {"rows", "row_of", "column_of", "first_of", "second_of", "table"}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """(kernel, constants, capability, options) to (registers and bytes of memory, assembler)."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def build(kernel, constants, capability=90, **options):
        kinds = {**dict.fromkeys(DOUBLES, "*fp64"), **dict.fromkeys(FLOATS, "*fp32"), **dict.fromkeys(INTEGERS, "*i32")}
        names = {"key": "i64"} | kinds | dict.fromkeys(constants, "constexpr")
        signature = {name: names.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        binary = tmp_path / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run([tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True)
        found = {name: int(re.search(rf"{name}:(\d+)", usage.stdout).group(1)) for name in ("REG", "STACK", "SHARED")}
        return found, compiled.asm["ptx"]

    return build


def ensemble(estimator, inputs, width=64, activation="tanh"):
    model = eft.ResNet(activation=activation, weight_variance=2.0, epsilon=0.05, depth=800)
    kernel = eft.InputKernel.equicorrelated(n_inputs=inputs, variance=2.0, correlation=0.3)
    return eft.EnsembleSpec(model=model, kernel=kernel, width=width, estimator=estimator)


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.campaign), 90])
def test_the_papers_ensemble_stays_in_registers_and_needs_no_barrier(built, capability):
    spec = ensemble("plain", 4)
    constants, options = gpu_engine.compile_constants(spec), gpu_engine.launch_options(spec)
    used, code = built(simulate_block, constants, capability, **options)
    # at least 12 blocks of one warp share the 65536 registers of a multiprocessor
    assert used["REG"] <= 168
    assert used["STACK"] == used["SHARED"] == 0
    assert "bar.sync" not in code
    assert "call.uni" not in code


def test_the_paired_estimator_compiles(built):
    spec = ensemble("paired", 2, activation="softplus")
    used, code = built(simulate_block, gpu_engine.compile_constants(spec), **gpu_engine.launch_options(spec))
    assert used["STACK"] == 0
    assert "bar.sync" not in code


@pytest.mark.parametrize("paired", [False, True])
def test_moments_compile(built, paired):
    known = {"PAIRED": paired, "BLOCK": gpu_moments.BLOCK}
    for kernel, more in ((gpu_moments.add_single, {"POWERS": 8}), (gpu_moments.add_pairs, {})):
        used, _ = built(kernel, known | more, num_warps=4, enable_fp_fusion=True)
        assert used["STACK"] == 0


def test_what_the_kernel_covers():
    assert gpu_engine.covers(ensemble("plain", 4))
    assert gpu_engine.covers(ensemble("paired", 4, width=1024))
    assert gpu_engine.covers(ensemble("plain", 8))
    assert not gpu_engine.covers(ensemble("plain", 9))
    assert not gpu_engine.covers(ensemble("paired", 5))
    assert not gpu_engine.covers(ensemble("paired", 4, width=65536))
    assert not gpu_engine.covers(ensemble("plain", 4, activation="sin"))
    assert not gpu_engine.covers(ensemble("plain", 4).model_copy(update={"dtype": "float64"}))
    assert not gpu_engine.covers(ensemble("plain", 4).model_copy(update={"sampler": "weights"}))
