#!/usr/bin/env bash
# Stops what ceph_up.sh started and removes its folder, data included.
#
#   infra/s3/ceph_down.sh [FOLDER]           default: /tmp/archiver-ceph
set -euo pipefail

folder=$(realpath -m "${1:-/tmp/archiver-ceph}")
if [[ ! -e $folder/ceph.conf ]]; then
    [[ ! -e $folder ]] || [[ $(ls -A "$folder") == up.log ]] || {
        echo "ceph_down: $folder holds no ceph.conf, so it is not one of ours" >&2
        exit 1
    }
    rm -rf -- "$folder"
    exit 0
fi

is_ours() { # process id: a pid file can outlive its process, and the number can be another's by now
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "-c $folder/ceph.conf"
}

stop() { # process id
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in $(seq 50); do
        is_ours "$1" || return 0
        sleep 0.2
    done
    kill -KILL "$1" 2>/dev/null || true # radosgw can take minutes over its last words
    for _ in $(seq 50); do
        is_ours "$1" || return 0
        sleep 0.1
    done
    echo "ceph_down: process $1 does not end" >&2
    return 1
}

for daemon in client.rgw.a osd.0 mon.m; do # clients before what they need
    pid_file=$folder/run/$daemon.pid
    [[ -s $pid_file ]] || continue
    pid=$(<"$pid_file")
    if is_ours "$pid"; then stop "$pid"; fi
done
rm -rf -- "$folder"
