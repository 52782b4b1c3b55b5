# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of two deployments (parity.py): its rules, what is rendered for each, what differs, and how that is shown."""
