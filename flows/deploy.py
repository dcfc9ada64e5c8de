"""Create work pools and deployments on the current Prefect server: ``python -m flows.deploy``. Can be repeated."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CPU_POOL, GPU_POOL = "miar-cpu", "miar-gpu"


def main() -> None:
    """Make both pools, choose where GPU work goes, and deploy every flow of ``prefect.yaml``."""
    console = Console(soft_wrap=True)
    for pool in (CPU_POOL, GPU_POOL):
        _prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
    has_gpu = _has_gpu()
    pool = os.environ.get("MIAR_GPU_POOL") or (GPU_POOL if has_gpu else CPU_POOL)
    if has_gpu:
        limit = f"gpu:{socket.gethostname()}"
        if _prefect("gcl", "inspect", limit, check=False).returncode:
            _prefect("gcl", "create", limit, "--limit", "1")
    _prefect("--no-prompt", "deploy", "--all", MIAR_ROOT=str(ROOT), MIAR_GPU_POOL=pool)
    console.print(f"deployed to {_server()}: training and scoring go to the pool '{pool}'")
    if pool == CPU_POOL and not has_gpu:
        console.print(
            f"  (no GPU on this host; MIAR_GPU_POOL={GPU_POOL} make deploy sends them to a GPU worker elsewhere)"
        )
    console.print("start a worker for each pool, on the hosts that are to do its work:")
    for one in dict.fromkeys((CPU_POOL, pool)):
        console.print(f"  prefect worker start --pool {one}")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _server() -> str:
    from prefect.settings import get_current_settings

    return str(get_current_settings().api.url or "the local Prefect database")


def _prefect(*words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Prefect's own command line; its output is shown only where it fails."""
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        sys.exit(f"prefect {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    main()
