#!/bin/sh
# Boots systemd as process 1 of its own namespaces, starts the unit in it, looks, stops it.
#
#   boot.sh PROGRAM UNIT DIRECTORY      writes DIRECTORY/report and DIRECTORY/log
#
# Nothing outside the namespaces changes but one cgroup, which is removed again.
set -e
program=$1 unit=$2 dir=$3 stage=$4

if [ -z "$stage" ]; then
    # A cgroup of its own, or the inner systemd would take the outer one's over.
    for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [ -e $root/cgroup.procs ] && break
    done
    group=$root/turnkey-test-$$
    mkdir "$group" 2>/dev/null || { echo no-cgroups >"$dir/report"; exit 0; }
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" \
        timeout -s KILL 120 unshare --mount --pid --fork --cgroup --ipc --uts --net --mount-proc --kill-child \
        sh "$0" "$program" "$unit" "$dir" inside || true
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    grep -q '^end$' "$dir/report"
    exit
fi

if [ "$stage" = inside ]; then
    # Nothing gets out; inside, mounts reach the service, as they do where systemd boots a machine.
    mount --make-rprivate / && mount --make-rshared /
    # What the unit may see of this test: copies, not the originals.
    mount -t tmpfs tmpfs /usr/local/bin
    cp "$program" /usr/local/bin/turnkey
    mount -t tmpfs tmpfs /etc/systemd/system
    cp "$unit" /etc/systemd/system/turnkey.service
    mkdir -p /etc/turnkey
    mount -t tmpfs tmpfs /etc/turnkey
    cat >/etc/turnkey/turnkey.toml <<EOF
[relay]
public_address = "127.0.0.1"
[http]
listen = ["127.0.0.1:443"]
EOF
    # The journal is not there; the rest is as it stands in the unit.
    mkdir /etc/systemd/system/turnkey.service.d
    printf '[Unit]\nDefaultDependencies=no\nWants=\nAfter=\n[Service]\nStandardError=file:%s\n' "$dir/log" \
        >/etc/systemd/system/turnkey.service.d/test.conf
    mount -t tmpfs tmpfs /var/lib
    mount -t tmpfs tmpfs /run
    mkdir -p /run/lock /run/credstore
    (umask 077 && echo from-the-credential-store >/run/credstore/turnkey.secrets)
    umount -R -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup || { echo no-cgroups >"$dir/report"; exit 0; }
    ip link set lo up
    sh "$0" "$program" "$unit" "$dir" look >"$dir/report" 2>&1 &
    exec env -i PATH="$PATH" container=other /lib/systemd/systemd --system --unit=turnkey.service --show-status=no
fi

# A fresh systemd does not listen at once.
show() { systemctl show turnkey.service --property "$1" --value 2>/dev/null || true; }
until_is() {
    tries=600
    while [ "$(show "$1")" != "$2" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "$1 is $(show "$1"), not $2"; systemctl status turnkey --no-pager; return 0; }
        sleep 0.1
    done
}
fetch() { # HOST PORT PATH: over a plain socket, so that nothing need be installed
    perl -MIO::Socket::INET -e '
        $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or exit 1;
        print $s "GET $ARGV[2] HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        print while <$s>' "$1" "$2" "$3"
}
until_is ActiveState active
pid=$(show MainPID)
grep -E '^(Uid|CapEff|Seccomp|NoNewPrivs):' "/proc/$pid/status"
grep '^Max open files' "/proc/$pid/limits"
fetch 127.0.0.1 9641 /livez | grep -q '^ok' && echo livez=ok
fetch 127.0.0.1 443 /health | grep -q ' 200 ' && echo port-443=ok
systemctl reload turnkey
tries=100
until grep -q 'configuration read again' "$dir/log" || [ $tries = 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
[ $tries = 0 ] || echo reloaded=ok
# The secret came from the credential store, so none was generated.
[ ! -e /var/lib/private/turnkey/secret ] && [ -d /var/lib/private/turnkey ] && echo credential=used
sleep 12 # more than WatchdogSec
fetch 127.0.0.1 9641 /livez | grep -q '^ok' || echo dead
echo "restarts=$(show NRestarts)"
systemctl stop turnkey
echo "result=$(show Result)"
echo "status=$(show ExecMainStatus)"
echo end
systemctl poweroff --force --force
