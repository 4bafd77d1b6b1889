"""Answers that took long to find: kept on disk as JSON, a file for each question. A question is all that its answer depends on."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from mlp_accel.backends.cache_folders import CACHE_VARIABLE, cache_root
from mlp_accel.errors import OutputError
from mlp_accel.files import write_text

logger = logging.getLogger("mlp_accel")


def answer_file(folder: str, question: Any, consequence: str) -> Path | None:
    """Where the answer to a question, of types that JSON knows, is kept in a folder of the cache.

    None, and a warning that begins with the `consequence`, if nothing can be kept.
    """
    try:
        place = cache_root() / folder
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning("%s: %s; set %s", consequence, error, CACHE_VARIABLE)
        return None
    text = json.dumps(question, sort_keys=True)
    return place / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def answer_files(folder: str) -> list[Path]:
    """The files of all answers in a folder of the cache."""
    try:
        return sorted((cache_root() / folder).glob("*.json"))
    except (OSError, RuntimeError):
        return []


def read_answer(file: Path | None) -> dict[str, Any] | None:
    """What a file holds; None if there is none, or, after a warning, if it is damaged."""
    if file is None:
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        warn_damaged(file, error)
        return None


def warn_damaged(file: Path, error: Exception) -> None:
    """Say that what a file holds is found out anew."""
    logger.warning("%s is damaged and not used: %s", file, getattr(error, "strerror", None) or error)


def keep_answer(file: Path | None, content: dict[str, Any], what: str) -> None:
    """Write an answer, whole or not at all; if it cannot be written, a warning says that `what` is not kept."""
    if file is None:
        return
    try:
        write_text(file, json.dumps(content, indent=2) + "\n")
    except OutputError as error:
        logger.warning("%s is not kept: %s", what, error)
