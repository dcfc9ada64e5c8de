"""``import miar`` is instant, and the models need torch, numpy and pyarrow alone."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

BARE_MODULES = ["miar.models.systems", "miar.objectives.objective", "miar.training.loop", "miar.scoring.scorer"]
BARE_MODULES += ["miar.evaluation.metrics", "miar.evaluation.protocols", "miar.evaluation.baselines"]

BLOCKER = """
import sys
BLOCKED = set({blocked!r})
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'{{name}} is not installed on a bare GPU box', name=name)
sys.meta_path.insert(0, Blocker())
import {module}
"""


def _with_requirements(names: set[str]) -> set[str]:
    """Distributions, and everything they require here, in normal form."""
    found: set[str] = set()
    left = {name.lower().replace("_", "-") for name in names}
    while left:
        name = left.pop()
        found.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for one in needed:
            wanted = one.name.lower().replace("_", "-")
            if wanted not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
                left.add(wanted)
    return found


@pytest.fixture(scope="module")
def blocked() -> list[str]:
    """Every importable package that a machine with torch, numpy and pyarrow alone would not have."""
    allowed = _with_requirements({"torch", "numpy", "pyarrow"})
    return sorted(
        package
        for package, distributions in packages_distributions().items()
        if not {name.lower().replace("_", "-") for name in distributions} & (allowed | {"miar"})
    )


def test_the_blocker_blocks_what_it_should(blocked: list[str]) -> None:
    assert {"prefect", "opensmile", "mediapipe", "feat", "pydantic", "deltalake", "transformers"} <= set(blocked)
    code = BLOCKER.format(blocked=blocked, module="pydantic")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


def test_the_models_import_on_a_bare_box(blocked: list[str]) -> None:
    code = BLOCKER.format(blocked=blocked, module=", ".join(BARE_MODULES))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_pulls_in_nothing() -> None:
    code = "import sys, time; t = time.perf_counter(); import miar; print(time.perf_counter() - t, len(sys.modules))"
    before = len(subprocess.check_output([sys.executable, "-c", "import sys; print(*sys.modules)"], text=True).split())
    seconds, modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert float(seconds) < 0.5
    assert int(modules) - before < 5


def test_help_starts_no_heavy_library() -> None:
    heavy = ["torch", "prefect", "pandas", "pyarrow", "transformers", "mediapipe", "opensmile", "av", "plotly"]
    code = (
        "import sys; sys.argv = ['miar', '--help']\n"
        "from miar.cli import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        f"print('LOADED', *[name for name in {heavy!r} if name in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env={**os.environ, "COLUMNS": "100"})
    assert printed.rstrip().endswith("LOADED")


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_leave_the_cores_to_others_unless_told_otherwise(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = "import miar, os, sys; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == found
