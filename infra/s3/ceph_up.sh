#!/usr/bin/env bash
# Starts a real S3 server on loopback: Ceph with one monitor, one OSD on a sparse file, and one RADOS gateway.
#
#   infra/s3/ceph_up.sh [FOLDER [PORT]]      default: /tmp/archiver-ceph 18083; port 0: one that is free
#
# Needs root (Debian's packages are installed where missing; no container engine). Run again, it leaves a server that
# answers as it is. Prints the three ARCHIVER_TEST_S3_* settings; everything else goes to FOLDER/up.log.
set -euo pipefail

folder=$(realpath -m "${1:-/tmp/archiver-ceph}")
port=${2:-18083}
access_key=ARCHIVERTEST secret_key=ArchiverTestSecret
conf=$folder/ceph.conf

settings() {
    echo "ARCHIVER_TEST_S3_ENDPOINT=http://127.0.0.1:$port"
    echo "ARCHIVER_TEST_S3_KEY=$access_key"
    echo "ARCHIVER_TEST_S3_SECRET=$secret_key"
}

answers() { curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:$port/"; }

# Below 32768, where Linux begins to give ports to whoever asks for any: one found there can be gone before it is used.
free_port() {
    local candidate
    while :; do
        candidate=$((20000 + RANDOM % 12000))
        (: <"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null || break
    done
    echo "$candidate"
}

die() {
    echo "ceph_up: $1; see $folder/up.log" >&2
    tail -n 20 "$folder/up.log" >&2 || true
    exit 1
}

until_true() { # seconds, what is waited for, command...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >>"$folder/up.log" 2>&1; do
        ((SECONDS < deadline)) || die "$what did not come within its time"
        sleep 0.3
    done
}

install_packages() {
    local missing=()
    for pair in ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph:ceph-common curl:curl uuidgen:uuid-runtime; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    ((${#missing[@]})) || return 0
    echo "ceph_up: installing ${missing[*]}" >&2
    apt-get update -q >>"$folder/up.log" 2>&1 || die "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" \
        >>"$folder/up.log" 2>&1 || die "apt-get install failed"
}

write_conf() {
    # Without msgr2: together with "auth none" it makes radosgw hang for minutes. One copy of everything: it is a test.
    cat >"$conf" <<END
[global]
fsid = $fsid
mon_initial_members = m
mon_host = v1:127.0.0.1:$monitor_port
ms_bind_msgr2 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_max_pg_per_osd = 1000
run_dir = $folder/run
pid_file = $folder/run/\$name.pid
admin_socket = $folder/run/\$name.asok
log_file = $folder/log/\$name.log
[mon.m]
host = localhost
mon_data = $folder/mon
mon_data_avail_crit = 1
[osd]
osd_data = $folder/osd
osd_objectstore = bluestore
bluestore_block_size = 8589934592
bluestore_block_create = true
osd_memory_target = 939524096
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:$port
rgw_data = $folder/rgw
rgw_thread_pool_size = 64
END
}

make_monitor() {
    monmaptool --create --clobber --fsid "$fsid" --addv m "[v1:127.0.0.1:$monitor_port]" "$folder/monmap"
    ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-mon -c "$conf" -i m --mkfs --monmap "$folder/monmap" --keyring "$folder/keyring"
}

start_monitor() { # more than once, should its port be taken meanwhile
    for _ in 1 2 3; do
        monitor_port=$(free_port)
        rm -rf -- "$folder/mon"
        mkdir "$folder/mon"
        write_conf
        make_monitor && ceph-mon -c "$conf" -i m && return 0
    done
    return 1
}

make_osd() {
    local uuid
    uuid=$(uuidgen)
    ceph -c "$conf" --connect-timeout 30 osd new "$uuid"
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid"
    ceph -c "$conf" --connect-timeout 30 osd crush add osd.0 1.0 host=localhost root=default
}

start_osd() { # more than once: one that asks before it knows the monitor's fsid ends with "wrong fsid"
    for _ in 1 2 3; do
        ceph-osd -c "$conf" -i 0 && return 0
    done
    return 1
}

osd_is_up() { ceph -c "$conf" --connect-timeout 5 osd stat | grep -q '1 up'; }

mkdir -p "$folder"
touch "$folder/up.log"
if [[ -e $conf ]]; then
    ((port)) || port=$(sed -n 's/^rgw_frontends = .*://p' "$conf")
    if answers; then
        settings
        exit 0
    fi
    "$(dirname "$0")/ceph_down.sh" "$folder" # a half-started one
    mkdir -p "$folder"
fi
install_packages
((port)) || port=$(free_port)
answers && die "port $port is taken by another server"
mkdir -p "$folder"/{osd,rgw,run,log}
fsid=$(uuidgen)
start_monitor >>"$folder/up.log" 2>&1 || die "the monitor did not start"
make_osd >>"$folder/up.log" 2>&1 || die "the OSD could not be made"
start_osd >>"$folder/up.log" 2>&1 || die "the OSD did not start"
until_true 60 "the OSD" osd_is_up
radosgw -c "$conf" -n client.rgw.a >>"$folder/up.log" 2>&1 || die "the gateway did not start"
until_true 180 "the gateway" answers
radosgw-admin -c "$conf" user create --uid archiver --display-name archiver \
    --access-key "$access_key" --secret "$secret_key" >>"$folder/up.log" 2>&1 || die "no user could be made"
settings
