"""From the name of a model to a directory on this disk: the one that is here, or what a Hugging Face id stands for."""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personaplex import shipped
from personaplex.errors import HubError
from personaplex.hints import did_you_mean

DEFAULT_MODEL = "aufklarer/PersonaPlex-7B-MLX-4bit"  # tagged CC-BY-NC-4.0

# id -> what to know before downloading it.
KNOWN_MODELS: dict[str, str] = {
    DEFAULT_MODEL: "4-bit, about 5 GB, licence tag CC-BY-NC-4.0 (the default)",
    "aufklarer/PersonaPlex-7B-MLX-8bit": "8-bit, about 9 GB, licence tag CC-BY-NC-4.0",
    "nvidia/personaplex-7b-v1": "NVIDIA's original, 17 GB, gated: accept its licence first; quantized at load (--bits)",
    "kyutai/personaplex-rl-seamless": (
        "the original trained further by Kyutai; weights derived: a CC-BY-NC delta on NVIDIA's, see its page; "
        "quantized at load (--bits)"
    ),
}

ALLOW_PATTERNS = ["*.safetensors", "config.json", "*.model", "voices/*", "voices.tgz"]

_RANDOM = ("random:7b", "random:tiny")

# What an error says that a download may be missing for; never a reason to load it unasked.
_INSTEAD = f"Without a download there is --model {shipped.TINY}, the small trained model that comes with this package."
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: as the user would write it again.
        directory: the checkpoint, or None for random weights.
        revision: the commit, for a model of the hub.
    """

    name: str
    directory: Path | None
    revision: str | None = None

    @property
    def core_source(self) -> str:
        """What the core's Model takes."""
        return self.name if self.directory is None else str(self.directory)

    @property
    def about(self) -> str | None:
        """What kind of model it is, for those of which that is known."""
        if self.name == shipped.TINY:
            return shipped.ABOUT
        if self.name in _RANDOM:
            return "random weights: noise"
        return KNOWN_MODELS.get(self.name.partition("@")[0])


def resolve(source: str | os.PathLike[str], revision: str | None = None, download: bool = True) -> ModelSource:
    """A name or a directory -> a ModelSource, downloading if needed.

    The name "tiny" is the model that comes with the package, whatever lies in the current folder; else a string names a
    directory, "random:7b", "random:tiny", or "owner/name[@revision]". Without `download`, a model of the hub has to be
    in the cache.

    Raises:
        TypeError: neither a string nor a path.
        HubError: nothing of that name, no access, no network, or a download that did not finish.
        ValueError: a revision for something that is not on the hub, or two revisions.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"[load] expected the name or directory of a model, got {type(source).__name__}.")
    text = str(os.fspath(source))
    if source == shipped.TINY:
        return _local(shipped.TINY, shipped.folder(), revision)
    if text.startswith("random:"):
        if text not in _RANDOM:
            raise HubError(f"[load] {text!r} is no random model; choose {' or '.join(_RANDOM)}.")
        return _local(text, None, revision)
    path = Path(text).expanduser()
    if text and path.is_dir():
        # As a string, the name alone would be the model of the package.
        return _local(f"./{text}" if text == shipped.TINY else text, path, revision)
    if path.is_file():
        raise HubError(f"[load] {text!r} is a file; expected the directory that holds the checkpoint.")
    repo, _, pinned = text.partition("@")
    if isinstance(source, os.PathLike) or _looks_like_path(text) or not _HUB_ID.fullmatch(repo):
        raise HubError(
            f"[load] {text!r} is neither a directory nor a model id; expected a directory, {shipped.TINY}, "
            f"random:tiny, random:7b, or owner/name such as {DEFAULT_MODEL}{_hint(text)}."
        )
    if pinned and revision and pinned != revision:
        raise ValueError(f"[load] two revisions: {pinned!r} in the name and revision={revision!r}.")
    return _download(repo, pinned or revision, download)


def _local(name: str, directory: Path | None, revision: str | None) -> ModelSource:
    if revision is not None:
        raise ValueError(f"[load] revision={revision!r} goes with a model of the hub, not with {name!r}.")
    return ModelSource(name, directory)


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "/", "~")) or text.count("/") != 1 or "\\" in text


def _hint(text: str) -> str:
    return did_you_mean(text, (shipped.TINY, *_RANDOM, *KNOWN_MODELS))


def _download(repo: str, revision: str | None, download: bool) -> ModelSource:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=revision,
                allow_patterns=ALLOW_PATTERNS,
                library_name="personaplex",
                local_files_only=not download,
            )
        )
    except Exception as error:
        if not download and isinstance(error, errors.LocalEntryNotFoundError):
            raise HubError(
                f"[load] {repo} is not in the cache{_hint(repo)}; `hf download {repo}` fetches it. {_INSTEAD}"
            ) from None
        raise HubError(_explain(error, repo, revision)) from error
    # An offline cache may hold a snapshot of which only the small files arrived.
    if not any(folder.glob("*.safetensors")):
        raise HubError(
            f"[load] {repo} has no *.safetensors in its snapshot {str(folder)!r}: it is no PersonaPlex model, or the "
            f"download did not finish; `hf download {repo}` finishes it. {_INSTEAD}"
        )
    name = repo if revision is None else f"{repo}@{revision}"
    return ModelSource(name, folder, folder.name)


def _explain(error: Exception, repo: str, revision: str | None) -> str:
    """One sentence on what happened, and the next step."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    incomplete: Any = getattr(errors, "IncompleteSnapshotError", ())  # younger than the oldest supported version
    if isinstance(error, errors.GatedRepoError):
        return (
            f"[load] {repo} is gated: accept its licence at {page}, then `hf auth login`, then run this again. "
            f"{_INSTEAD}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"[load] there is no model {repo} on the hub, or your account may not see it; check the name at {page}"
            f"{_hint(repo)}, and `hf auth login` if it is private. {_INSTEAD}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"[load] {repo} has no revision {revision!r}; see {page}/commits/main."
    if incomplete and isinstance(error, incomplete):
        return (
            f"[load] the download of {repo} is not complete and the hub cannot be reached; run this again online "
            f"(files that have arrived are kept). {_INSTEAD}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return (
                f"[load] {repo} is not in the cache {constants.HF_HUB_CACHE!r} and HF_HUB_OFFLINE forbids downloading; "
                f"unset it once, or copy the cache from another machine. {_INSTEAD}"
            )
        return (
            f"[load] {repo} is not in the cache and {constants.ENDPOINT} cannot be reached; check the network or "
            f"proxy and run this again, or load a local directory. {_INSTEAD}"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"[load] the disk of {constants.HF_HUB_CACHE!r} is full; free space or set HF_HOME to another disk, then "
            f"run this again (files that have arrived are kept). {_INSTEAD}"
        )
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"[load] the cache {str(error.filename or constants.HF_HUB_CACHE)!r} cannot be used: {error.strerror}; "
            f"give yourself permission, or set HF_HOME to a folder that you may write to. {_INSTEAD}"
        )
    if isinstance(error, errors.HFValidationError):
        return f"[load] {repo!r} is no valid model id ({error}); expected owner/name such as {DEFAULT_MODEL}."
    first = (str(error).strip() or "no message").splitlines()[0]
    what = f"{type(error).__name__}: {first}"
    return f"[load] downloading {repo} failed: {what} Run this again; files that have arrived are kept. {_INSTEAD}"
