# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Service Management Facility (smf(7)) for Linux: repository, manifests, master restarter and the four tools.

It serves the simulated global zone and each joyent zone alike; :class:`~.place.Place` says which one. README.md beside this
file lists what behaves as on illumos, and how that is known.
"""
