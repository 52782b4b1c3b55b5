# Copyright (c) 2026, the zonestack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of Nova's WSGI applications, ready to be forked by uWSGI.

Loading it asks the cells, for which Nova makes a pool of threads. Threads do not come along into a forked process, the pool
does: a worker would wait for its first answer for ever. So the pool is forgotten, as nova-conductor does before it forks.
"""

import importlib
import os

application = importlib.import_module(os.environ["ZONESTACK_WSGI"]).application

from nova import thread_pool_factory  # noqa: E402  # only after the application has chosen native threads

thread_pool_factory.reset_all_executors()
