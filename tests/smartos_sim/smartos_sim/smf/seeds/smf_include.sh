# shellcheck shell=sh disable=SC2034
# SPDX-License-Identifier: GPL-3.0-or-later
# What methods source: smf_method(7).
SMF_EXIT_OK=0
SMF_EXIT_NODAEMON=94
SMF_EXIT_ERR_FATAL=95
SMF_EXIT_ERR_CONFIG=96
SMF_EXIT_MON_DEGRADE=97
SMF_EXIT_ERR_NOSMF=99
SMF_EXIT_ERR_PERM=100

smf_present() {
	[ -n "$SMF_FMRI" ]
}

smf_clear_env() {
	unset SMF_FMRI SMF_METHOD SMF_RESTARTER SMF_ZONENAME
}
