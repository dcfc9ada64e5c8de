"""The systems by name."""

from miar.models.mcur import MCUR
from miar.models.mgcma import MGCMA
from miar.models.miar import MIAR
from miar.models.system import System

SYSTEMS: dict[str, type[System]] = {kind.config_class.system: kind for kind in (MIAR, MGCMA, MCUR)}
"""The same names as :data:`miar.models.config.CONFIGS`."""
