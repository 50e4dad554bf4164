"""SHA-256 of files and texts: what cached things are known by."""

import hashlib
from pathlib import Path


def sha256_file(path: Path) -> str:
    """Hexadecimal, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hexadecimal, of the UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
