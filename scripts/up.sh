#!/usr/bin/env bash
# Builds the registry and runs it in the background on 127.0.0.1:5000, data in var/data.
# `up.sh down` stops it. Running `up.sh` again restarts it with what was built last.
set -euo pipefail
cd "$(dirname "$0")/.."
state=var
port=${PORT:-5000}

pid_of_server() {
    local pid
    pid=$(cat "$state/registry.pid" 2>/dev/null) || return 1
    # The number may belong to another program by now.
    [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == "$PWD"/* ]] && echo "$pid"
}

stop() {
    local pid
    if pid=$(pid_of_server); then
        kill "$pid"
        for _ in $(seq 150); do
            [[ -e /proc/$pid ]] || break
            sleep 0.1
        done
        echo "stopped the registry (process $pid)"
    fi
    rm -f "$state/registry.pid"
}

if [[ ${1:-} == down ]]; then
    stop
    exit
fi

cargo build --release --package registry
mkdir -p "$state"
cp target/release/registry "$state/registry.next"
stop
mv "$state/registry.next" "$state/registry"
env REGISTRY_HTTP_ADDR="127.0.0.1:$port" REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="$PWD/$state/data" \
    setsid "$state/registry" serve examples/registry.yml >"$state/registry.log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$state/registry.pid"
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && [[ -e /proc/$pid ]]; then
        ready=yes
        break
    fi
    [[ -e /proc/$pid ]] || break
    sleep 0.1
done
if [[ ${ready:-} != yes ]] || ! kill -0 "$pid" 2>/dev/null; then
    cat "$state/registry.log" >&2
    echo "the registry did not start; PORT=5001 make up takes another port" >&2
    rm -f "$state/registry.pid"
    exit 1
fi
cat <<EOF

The registry answers on 127.0.0.1:$port (process $pid, log $state/registry.log, data $state/data).
It is open to everyone on this machine. Type next:

  docker pull busybox                                  # or any image that you have
  docker tag busybox 127.0.0.1:$port/busybox
  docker push 127.0.0.1:$port/busybox
  docker pull 127.0.0.1:$port/busybox
  curl http://127.0.0.1:$port/v2/_catalog

  make image    builds it as the image registry:latest
  make down     stops it
EOF
