"""The trained model that comes with the package: its name, what it is, and where its files are."""

import importlib.resources
from pathlib import Path

from personaplex.errors import HubError

TINY = "tiny"
ABOUT = (
    "a small trained model that comes with this package: it answers a closed set of questions, in synthetic voices, "
    "and knows nothing else"
)


def folder() -> Path:
    """The checkpoint directory of `tiny`.

    Raises:
        HubError: this installation lacks it.
    """
    config = importlib.resources.files("personaplex") / TINY / "config.json"
    # The extension module keeps the package out of zip files, so resources are files, also in an editable installation.
    with importlib.resources.as_file(config) as path:
        if not path.is_file():
            raise HubError(
                f"[load] the files of {TINY!r} are missing from this installation ({str(path.parent)!r}); "
                "install personaplex again."
            )
        return path.parent
