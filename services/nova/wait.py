# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until APIs answer: wait.py SECONDS URL [URL ...]. For daemons that end with an error when they start before what they need.

After a power loss all zones start at once, and nobody orders them.
"""

from __future__ import annotations

import ssl
import sys
import time
import urllib.error
import urllib.request

CA = "/etc/zonestack/apis.crt"
PAUSE = 0.5
"""Seconds between two questions."""


def wrong(url: str) -> str:
    """What keeps the API from answering; nothing when it does, be it that it wants a token or offers several versions."""
    try:
        context = ssl.create_default_context(cafile=CA) if url.startswith("https:") else None
        urllib.request.urlopen(url, timeout=5, context=context).close()
    except urllib.error.HTTPError as answer:
        return f"answers {answer.code}" if answer.code >= 500 else ""
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""


def main(seconds: str, *urls: str) -> int:
    """Ask one after the other; 1 when one does not answer in time."""
    deadline = time.monotonic() + float(seconds)
    for url in urls:
        while why := wrong(url):
            if time.monotonic() > deadline:
                print(f"waited {seconds} s for {url}: {why}", file=sys.stderr)
                return 1
            time.sleep(PAUSE)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
