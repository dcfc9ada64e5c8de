"""What every test shares: where the weights are, and a quiet, closed network."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "MIAR_MODEL_DIR" not in os.environ and (SHARED / "models").is_dir():
    os.environ["MIAR_MODEL_DIR"] = str(SHARED / "models")
