# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse a local_settings.py that Horizon cannot load, or that sets what nobody reads: check_horizon_settings.py PATH."""

from __future__ import annotations

import ast
import difflib
import os
import ssl
import sys
import types
import warnings
from pathlib import Path

FIXED = {
    "AVAILABLE_THEMES": 0, "COMPRESS_ENABLED": 0, "COMPRESS_OFFLINE": 1, "HORIZON_CONFIG": 0, "INSTALLED_APPS": 0,
    "SECRET_KEY": 1, "STATIC_ROOT": 1, "STATIC_URL": 0, "THEME_COLLECTION_DIR": 0, "WEBROOT": 0,
}  # fmt: skip
"""What the image was made with, or what is a secret, and how often our own template sets it."""


def assigned(text: str) -> list[str]:
    """The names of settings that a module assigns at its first level, as often as it does so."""
    targets = [target for node in ast.parse(text).body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]


def faults(text: str) -> list[str]:
    """What is wrong with the settings, each in one line."""
    # The zone may not have its certificate and its key yet.
    os.environ.update(HORIZON_SECRET_KEY="of no use", DJANGO_SETTINGS_MODULE="openstack_dashboard.settings")
    ssl.create_default_context = lambda *_, **__: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # type: ignore[assignment]
    ssl.SSLContext.load_cert_chain = lambda *_, **__: None  # type: ignore[assignment,method-assign]
    warnings.simplefilter("ignore")
    mine = types.ModuleType("local.local_settings")
    exec(compile(text, "local_settings.py", "exec"), mine.__dict__)
    sys.modules[mine.__name__] = mine

    from compressor.conf import CompressorConf
    from django.conf import global_settings
    from openstack_dashboard import defaults, settings

    own = dict.fromkeys(assigned(Path(settings.__file__).read_text(encoding="utf-8")))
    compressor = {f"COMPRESS_{name}": None for name in dir(CompressorConf)}
    known = {**own, **compressor, **vars(global_settings), **vars(defaults)}
    names = assigned(text)
    found = []
    for name in dict.fromkeys(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            found.append(f"{name} is no setting of Horizon" + (f" (did you mean {near[0]}?)" if near else ""))
        elif names.count(name) > FIXED.get(name, len(names)):
            found.append(f"{name} cannot be set here: the image was made with it, or it is a secret")
        elif isinstance(known[name], dict) and not isinstance(getattr(mine, name), dict):
            found.append(f"{name} is {getattr(mine, name)!r}: give a mapping")
    return found


def main() -> None:
    """Say what is wrong with the file, if anything."""
    try:
        found = faults(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
