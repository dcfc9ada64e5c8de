"""MCUR: robust prediction when modalities are missing (arXiv 2605.06245).

[paper] MCB-CL: clips with the same emotion category *and* the same available modalities are drawn together; SUGR:
sample-wise weights from uncertainty, adapting during training. We have a digest, which says nothing of the network: the
trunk and its tokens are MIAR's, and what is MCUR's is how it is trained. Our reading:

    views         each clip is shown under two random subsets of its modalities in one batch
    MCB-CL        supervised contrast over all views (:mod:`miar.objectives.combination`)
    distillation  what a subset says is drawn to what all modalities say (:mod:`miar.objectives.distillation`)
    SUGR          the task loss of each view is weighed by its uncertainty (:mod:`miar.objectives.sample_weights`)

Each is a switch of :class:`MCURConfig`: ``views``, ``combination_weight``, ``distillation_weight``,
``sample_weighting``.
"""

from miar.models.config import MCURConfig
from miar.models.interaction import FeatureTokens
from miar.models.system import System


class MCUR(System):
    """The trunk with MIAR's four feature tokens, trained under missing modalities."""

    config_class = MCURConfig
    token_reader = FeatureTokens
    paper = "2605.06245"
