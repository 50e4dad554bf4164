"""Puts an exported model where the package ships it as `tiny`: python tools/ship_tiny.py EXPORT.

EXPORT is a checkpoint directory as tools/train_tiny/export.py writes it, in either layout, with its voices. It is
loaded, and all its voices with it, before anything in the source tree changes.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np

import personaplex

FOLDER = Path(__file__).resolve().parents[1] / "python" / "personaplex" / "tiny"
PATTERNS = ("*.safetensors", "*.model", "config.json", "voices/*.safetensors")
MAX_BYTES = 12_000_000


def exported(source: Path) -> list[Path]:
    """What of an export ships; SystemExit where that is not a small quantized model with the 18 voices."""
    files = sorted(path for pattern in PATTERNS for path in source.glob(pattern))
    size = sum(path.stat().st_size for path in files)
    if size > MAX_BYTES:
        raise SystemExit(f"{source}: {size / 1e6:.2f} MB; at most {MAX_BYTES / 1e6:.0f} MB ship.")
    model = personaplex.load(source, device="cpu")
    if model.voices() != list(personaplex.VOICES):
        raise SystemExit(f"{source}: expected the voices {', '.join(personaplex.VOICES)}, got {model.voices()}.")
    if max(model.info["bits"].values()) > 8:
        raise SystemExit(f"{source}: expected 4 or 8 bits everywhere, got {model.info['bits']}.")
    for voice in model.voices():
        with model.session(voice, "assistant", greedy=True) as session:
            session.step(np.zeros(personaplex.FRAME, np.float32))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    source: Path = parser.parse_args().export
    files = exported(source)
    # NOTICE stays: it is written by hand.
    for old in (path for pattern in PATTERNS for path in FOLDER.glob(pattern)):
        old.unlink()
    for file in files:
        target = FOLDER / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)  # with the mode of a new file, whatever the exporter's was
    print(f"{FOLDER}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
