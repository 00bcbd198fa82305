#!/usr/bin/env bash
# The whole on this machine: a container engine if none answers, `om` and its daemon, the images, and
# the service test/registry as docs/docker-private-registries.md has it. `up.sh down` takes away what
# this made, with its data. Running it again brings the newest build into use; what is stored stays.
#
#   CLUSTER=NAME make up     another name of the cluster, which is the zone of its names
#   SIZE=2g make up          another size of the registry's volume
set -euo pipefail
cd "$(dirname "$0")/.."
state=$PWD/var/node
made=$state/made
cluster=${CLUSTER:-homepool2}
programs=(om svcmgr nodemgr svcmon)
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

fail() {
    echo "up: $1" >&2
    exit 1
}

# Whether this made something, so that it may be taken away.
is_ours() {
    grep -qxF -- "$1" "$made" 2>/dev/null
}

note() {
    is_ours "$1" || echo "$1" >>"$made"
}

as_root() {
    ((EUID == 0)) && return
    command -v sudo >/dev/null || fail "root is needed for the engine and the network (hint: without root, make registry)"
    exec sudo --preserve-env=PATH,CLUSTER,SIZE,DOCKER_HOST "$PWD/scripts/up.sh" "$@"
}

engine_pid() {
    local pid
    pid=$(cat "$state/dockerd.pid" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] && echo "$pid"
}

start_engine() {
    docker version >/dev/null 2>&1 && return
    if [[ -d /run/systemd/system ]] && systemctl start docker && docker version >/dev/null 2>&1; then
        return
    fi
    echo "up: no engine answers; one is started with its data in $state/engine"
    note engine
    iptables-save >"$state/iptables.before" 2>/dev/null || true
    setsid dockerd --data-root "$state/engine" --pidfile "$state/dockerd.pid" \
        >"$state/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 300); do
        docker version >/dev/null 2>&1 && return
        sleep 0.1
    done
    tail -n 5 "$state/dockerd.log" >&2
    fail "the engine does not start; its log is $state/dockerd.log"
}

# Rules and the bridge that an engine of ours leaves behind.
forget_engine() {
    local pid table rule
    if pid=$(engine_pid); then
        kill "$pid"
        for _ in $(seq 150); do
            [[ -e /proc/$pid ]] || break
            sleep 0.1
        done
    fi
    ip link delete docker0 2>/dev/null || true
    for table in filter nat; do
        iptables -t "$table" -S 2>/dev/null | { grep -E '^-A .*(DOCKER|docker0)' || true; } | while read -r rule; do
            # shellcheck disable=SC2086 # A rule is words.
            iptables -t "$table" ${rule/#-A/-D} 2>/dev/null || true
        done
        for rule in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do
            iptables -t "$table" -F "$rule" 2>/dev/null || true
            iptables -t "$table" -X "$rule" 2>/dev/null || true
        done
    done
    if grep -q '^:FORWARD ACCEPT' "$state/iptables.before" 2>/dev/null || [[ ! -s $state/iptables.before ]]; then
        iptables -P FORWARD ACCEPT
    fi
}

if [[ ${1:-} == down ]]; then
    as_root down
    [[ -e $made ]] || {
        echo "there is nothing that \`make up\` made"
        exit
    }
    om=$state/om
    if "$om" daemon running >/dev/null 2>&1; then
        "$om" '*/svc/*' purge || fail "some services were not taken away; see: om mon"
        "$om" '*/vol/*' purge || fail "some volumes were not taken away; see: om mon"
        "$om" dns setup --undo --yes
        "$om" daemon stop
    fi
    for address in $(ip -oneline address show dev lo | grep -o '169\.254\.53\.53/32'); do
        ip address del "$address" dev lo
    done
    for bridge in $(ip -oneline link show type bridge 2>/dev/null | grep -o 'obr_[a-z0-9-]*' | sort -u); do
        ip link delete "$bridge"
    done
    for image in google/pause:latest registry:latest; do
        is_ours "image $image" && docker rmi "$image" >/dev/null 2>&1 || true
    done
    is_ours engine && forget_engine
    for name in "${programs[@]}"; do
        is_ours "link $name" && rm -f "/usr/local/bin/$name"
    done
    if is_ours places; then
        # Files that containers see are in memory there.
        umount /run/om/containers 2>/dev/null || true
        rm -rf /var/lib/om /run/om /etc/om
    fi
    rm -rf "$state"
    echo "all that \`make up\` made is gone"
    exit
fi

if [[ ${1:-} != built ]]; then
    cargo build --release --package om --package registry
fi
as_root built
install -d -m 700 "$state"
if [[ -e /var/lib/om ]] && ! is_ours places; then
    fail "there is a node of om on this machine already, in /var/lib/om; this would change it"
fi
note places
for name in "${programs[@]}"; do
    link=/usr/local/bin/$name
    if [[ -e $link || -L $link ]] && ! is_ours "link $name"; then
        fail "$link is there already"
    fi
    note "link $name"
    ln -sfn "$state/om" "$link"
done
cp target/release/om "$state/om.next"
mv "$state/om.next" "$state/om"

start_engine
for image in pause registry; do
    [[ $image == pause ]] && tag=google/pause:latest || tag=registry:latest
    docker image inspect "$tag" >/dev/null 2>&1 || note "image $tag"
    scripts/image.sh --image "$image"
done
if om daemon running >/dev/null 2>&1; then om daemon restart; else om daemon start; fi
if [[ $(om cluster name) != "$cluster" ]]; then
    om cluster set --kw "cluster.name=$cluster"
fi
om dns setup --yes

template=$state/registry.template
sed -n '/^cat > \/tmp\/registry.template/,/^EOF$/p' docs/docker-private-registries.md | sed '1d;$d' >"$template"
if [[ -z $(om test/svc/registry ls 2>/dev/null) ]]; then
    svcmgr create -s test/registry --config "$template" ${SIZE:+--env "size=$SIZE"} --provision
else
    om test/registry start
fi
host=registry.test.svc.$cluster:5000
echo
om test/registry print status
cat <<EOF

The registry is open to whoever reaches it: docs/om.md says how to have one with accounts. Type next:

  docker tag google/pause:latest $host/google/pause:latest
  docker push $host/google/pause:latest
  docker pull $host/google/pause:latest

  om mon                       the cluster's table; q ends it
  om test/registry --help      what can be done with the service
  make down                    takes all of it away, with its data
EOF
