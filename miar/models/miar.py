"""MIAR: modality interaction and alignment representation (arXiv 2601.02414).

[paper] feature interaction integrates context across modalities; feature tokens are global representations of
what each modality extracts from the others; four tokens; modalities are aligned by contrastive learning and
normalization; contributions of modalities vary. We have the abstract: everything else here is our reading, and
each part can be switched off in :class:`MIARConfig`.

The parts of the other two systems are switched on in the same place: ``distribution_weight`` (MGCMA), and ``views``,
``combination_weight``, ``distillation_weight``, ``sample_weighting`` (MCUR). That is the combined model.
"""

from miar.models.config import MIARConfig
from miar.models.interaction import FeatureTokens
from miar.models.system import System


class MIAR(System):
    """The trunk with MIAR's four feature tokens."""

    config_class = MIARConfig
    token_reader = FeatureTokens
    paper = "2601.02414"
