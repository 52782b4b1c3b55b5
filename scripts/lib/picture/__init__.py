# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a deployment's picture; layout.py puts them together, svg.py writes them."""
