"""Message definitions as MCAP embeds them: a type and all it uses in one text."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path

_SEPARATOR = "=" * 80
_PRIMITIVES = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "string", "wstring",
}  # fmt: skip
_FIELD = re.compile(r"^([A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]\w*")


class DefinitionMissing(LookupError):
    """A message type whose .msg file is not installed; names the package to source."""


def _file(package: str, name: str, ending: str = "msg") -> Path:
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    for prefix in [*prefixes, Path(sys.prefix)]:
        path = prefix / "share" / package / "msg" / f"{name}.{ending}"
        if path.is_file():
            return path
    raise DefinitionMissing(
        f"{package}/msg/{name}: no share/{package}/msg/{name}.msg under AMENT_PREFIX_PATH; source "
        f"the workspace that has '{package}'"
    )


def _uses(text: str, package: str) -> list[tuple[str, str]]:
    """Packages and names of the message types that fields of ``text`` have, in order."""
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line.split("#", 1)[0].strip())
        kind = match.group(1) if match else ""
        if not kind or kind in _PRIMITIVES:
            continue
        owner, _, name = kind.replace("/msg/", "/").rpartition("/")
        found.append((owner or ("std_msgs" if name == "Header" else package), name))
    return found


@lru_cache(maxsize=256)
def definition(type_name: str) -> str:
    """Text of ``pkg/msg/Type`` followed by every type it uses, in the ``ros2msg`` encoding.

    Raises
    ------
    DefinitionMissing
        The type, or one it uses, has no .msg file under ``AMENT_PREFIX_PATH`` or the environment.
    """
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    text = _file(package, name).read_text(encoding="utf-8")
    parts, seen = [text], {(package, name)}
    waiting = _uses(text, package)
    while waiting:
        key = waiting.pop(0)
        if key in seen:
            continue
        seen.add(key)
        text = _file(*key).read_text(encoding="utf-8")
        parts.append(f"{_SEPARATOR}\nMSG: {key[0]}/{key[1]}\n{text}")
        waiting += _uses(text, key[0])
    return "\n".join(p.rstrip("\n") for p in parts) + "\n"


@lru_cache(maxsize=256)
def type_hash(type_name: str) -> str:
    """Hash of ``pkg/msg/Type`` (REP 2016, ``RIHS01_...``), as publishers announce it.

    Empty where the package was built without type descriptions.
    """
    package, _, name = type_name.replace("/msg/", "/").partition("/")
    try:
        found = json.loads(_file(package, name, "json").read_text(encoding="utf-8"))
    except DefinitionMissing:
        return ""
    hashes = {h["type_name"]: h["hash_string"] for h in found["type_hashes"]}
    return str(hashes.get(f"{package}/msg/{name}", ""))
