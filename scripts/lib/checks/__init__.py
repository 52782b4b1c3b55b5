# SPDX-License-Identifier: GPL-3.0-or-later
"""What the facts of machines (facts.py) mean for a deployment: findings, each with its fix. Pure, and of the standard library alone.

A problem would break a run, or the deployment later. A warning costs speed, or is right where somebody wants it so.
"""
