"""Text of unknown encoding: UTF-8 or UTF-16 where it says so or is valid, else the best guess."""

import codecs

from miar.media.errors import TranscriptError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEGACY = ("cp1252", "cp1251", "cp1253", "cp1255", "cp1256", "shift_jis", "gb18030", "big5", "euc_kr")
"""Tried where the text is neither UTF-8 nor UTF-16. Latin-1 is read as its superset cp1252."""
_SAMPLE_BYTES = 65_536


def decode_text(data: bytes) -> str:
    """``data`` as text.

    Raises:
        TranscriptError: it is not text.
    """
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), None)
    if encoding is None and b"\0" in data:
        encoding = _utf16_without_bom(data)
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise TranscriptError(f"not valid {encoding.removesuffix('-sig').upper()} text") from error
    return data.decode(_guess(data), errors="replace")


def _utf16_without_bom(data: bytes) -> str:
    """UTF-16 has its zero bytes on one side of each pair.

    Raises:
        TranscriptError: they lie on both sides, so this is no text.
    """
    even, odd = data[0:_SAMPLE_BYTES:2].count(0), data[1:_SAMPLE_BYTES:2].count(0)
    if odd > 4 * even:
        return "utf-16-le"
    if even > 4 * odd:
        return "utf-16-be"
    raise TranscriptError("not text: it holds zero bytes")


def _guess(data: bytes) -> str:
    """A Western text is ASCII with a few other letters, too few to guess from; other scripts are told by
    theirs."""
    sample = data[:_SAMPLE_BYTES]
    high = sum(byte >= 0x80 for byte in sample)
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    if high <= letters:
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_LEGACY)).best()
    return "cp1252" if best is None else best.encoding
