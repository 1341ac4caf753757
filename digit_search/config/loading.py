"""The settings of a run, put together from the defaults, a TOML file, `--set` and flags. The result is checked once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from digit_search.config.messages import problem_lines
from digit_search.config.search_space import default_space, dimension_model
from digit_search.config.settings import RunSettings
from digit_search.errors import ConfigError
from digit_search.files.bounded_io import is_nested_beyond, parse_toml, read_bounded

MAX_CONFIG_BYTES = 1 << 20
"""Room for ten thousand points; configs/default.toml takes 6 KB. The resolved settings must fit too, or the run could not resume."""
MAX_DEPTH = 12
MAX_PROBLEMS = 30
MAX_PROBLEM_LETTERS = 500


def load_settings(path: Path | None = None, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> RunSettings:
    """Resolve the settings of a run: a flag beats `--set`, which beats the file, which beats the default.

    Args:
        path: a TOML file, or None.
        assignments: `KEY=VALUE` texts.
        flags: dotted keys and values; None values are skipped.

    Raises:
        ConfigError: with every problem found, each with its key.
    """
    tree = to_tree(RunSettings())
    if path is not None:
        _merge(tree, _read_toml(path))
    for text in assignments:
        _assign(tree, *_parse_assignment(text))
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key.split("."), value)
    source = str(path) if path else "the command line"
    if is_nested_beyond(tree, MAX_DEPTH):
        raise ConfigError(
            f"{source}: expected tables and lists at most {MAX_DEPTH} deep, found deeper ones; configs/default.toml shows every setting"
        )
    return _validate(tree, source)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        tree = parse_toml(read_bounded(path, MAX_CONFIG_BYTES).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; configs/default.toml shows every setting") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; configs/default.toml shows every setting") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    if isinstance(tree.get("data"), dict):
        # Older runs have this setting in their config.toml. Parsed tables were kept there until reading a CSV became fast enough.
        tree["data"].pop("cache_dir", None)
    return tree


def _parse_assignment(text: str) -> tuple[list[str], Any]:
    """Split `a.b.c=VALUE` into its keys and its value, which is parsed as TOML, or taken as text if it is not TOML."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigError(f"--set {text}: expected KEY=VALUE with a dotted key, e.g. --set search.space.lr.high=0.1")
    try:
        return keys, parse_toml(f"value = {raw}")["value"]
    except ValueError:
        return keys, raw.strip()


def _merge(tree: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """Put the values of `over` into `tree`: tables are merged key by key, but a searched parameter is replaced whole."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and path != ("search", "space"):
            _merge(tree[key], value, (*path, key))
        else:
            tree[key] = value


def _assign(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _validate(tree: dict[str, Any], source: str) -> RunSettings:
    problems = _check_space(tree)
    try:
        settings = RunSettings.model_validate(tree)
    except ValidationError as error:
        problems += problem_lines(error, RunSettings)
    if problems:
        count = "one setting" if len(problems) == 1 else f"{len(problems)} settings"
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        shown = [_printable(problem) for problem in problems[:MAX_PROBLEMS]]
        raise ConfigError(f"{source}: {count} cannot be used:\n  " + "\n  ".join(shown + more))
    if (size := len(to_toml(settings).encode())) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: expected settings of at most {MAX_CONFIG_BYTES} bytes as a run's config.toml, found {size}")
    return settings


def _printable(problem: str) -> str:
    """One line of limited length: a file from a stranger may have control characters or a million letters in a key."""
    text = problem if len(problem) <= MAX_PROBLEM_LETTERS else f"{problem[:MAX_PROBLEM_LETTERS]}…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _check_space(tree: dict[str, Any]) -> list[str]:
    """Turn the tables of search.space into their models, and return the problems.

    pydantic would try every model and report the problems of each; the parameter's name says which one is meant.
    """
    search = tree.get("search")
    if not isinstance(search, dict) or not isinstance(search.get("space"), dict):
        return []
    space: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in search["space"].items():
        if not isinstance(value, Mapping):
            space[name] = value
            continue
        model = dimension_model(name, value)
        try:
            space[name] = model.model_validate(value)
        except ValidationError as error:
            problems += [f"search.space.{name}.{line}" for line in problem_lines(error, model)]
    # A parameter with a problem is left out, so that the others are still checked against each other.
    tree["search"] = {**search, "space": space or default_space()}
    return problems


def to_tree(settings: RunSettings) -> dict[str, Any]:
    """The settings as nested dicts of TOML's types."""
    tree = settings.model_dump(mode="json")
    for dimension in tree["search"]["space"].values():
        if isinstance(dimension, dict) and not dimension["when"]:
            del dimension["when"]
    return tree


def to_toml(settings: RunSettings) -> str:
    """The settings as TOML, so that `--config` on it repeats the run."""
    return tomli_w.dumps(to_tree(settings))
