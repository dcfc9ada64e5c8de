"""The demo corpus: talking faces, made rather than downloaded, whose labels the real extractors can recover.

    from miar.synth import make_corpus
    make_corpus(Path("demo"), clips=240, seed=0)

How it is made, and how well one can do on it: docs/demo-corpus.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miar.synth.corpus import CorpusSummary, make_corpus

__all__ = ["CorpusSummary", "make_corpus"]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line's start must not wait for numpy and Pillow."""
    if name in __all__:
        from miar.synth import corpus

        return getattr(corpus, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
