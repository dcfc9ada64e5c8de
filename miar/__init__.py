"""MIAR: multimodal emotion recognition as a batch pipeline.

No library is imported here, so that ``import miar`` stays instant and the models can be used on a bare GPU box.
"""

import os

# torch's threads would wait for each other in a busy loop: beside other work a small training took ten times as long.
# The setting counts for whatever loads torch after this; one that stands in the environment already is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
