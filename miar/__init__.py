"""MIAR: multimodal emotion recognition as a batch pipeline.

Nothing is imported here, so that ``import miar`` stays instant and the models can be used on a bare GPU box.
"""

__version__ = "0.1.0"
