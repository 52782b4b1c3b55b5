#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Exit with 0 when HAProxy of this zone answers a request: a process that runs but hangs does not. keepalived asks once a second,
# and kills a question that takes longer than that.
exec 3<>/dev/tcp/127.0.0.1/80 || exit 1
printf 'GET /alive HTTP/1.0\r\n\r\n' >&3
read -r _version code _ <&3 && [[ $code == 200 ]]
