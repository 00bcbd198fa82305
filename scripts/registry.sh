#!/usr/bin/env bash
# Builds the registry, makes one in var/data with accounts and certificates the first time, and runs
# it in the background on port 5000. `registry.sh down` stops it. Running it again restarts it with
# what was built last; the accounts and the password stay.
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
data=$PWD/$state/data
password=$state/admin-password
config=$state/data/config.yml
if [[ ! -e $config ]]; then
    # A data directory of a registry that was open gets accounts, and keeps its images.
    "$state/registry" init "$data" --addr ":$port" --password-file "$password" >"$state/init.log" || {
        echo "the registry could not be made in $state/data" >&2
        exit 1
    }
    new=yes
fi
env REGISTRY_HTTP_ADDR=":$port" \
    setsid "$state/registry" serve "$config" >"$state/registry.log" 2>&1 </dev/null &
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
    echo "the registry did not start; PORT=5001 make registry takes another port" >&2
    rm -f "$state/registry.pid"
    exit 1
fi
# Only the first one is known here: `registry user passwd admin` makes another.
if [[ ${new:-} == yes ]]; then
    secret="password $(cat "$password"), also in $password"
else
    secret="its first password is in $password"
fi
cat <<EOF

The registry answers on https://localhost:$port (process $pid, log $state/registry.log, data $state/data).
Log in as admin: $secret.
Type next:

  sudo $state/registry trust localhost:$port --install --config $config
  docker login localhost:$port -u admin --password-stdin < $password
  docker pull busybox                                  # or any image that you have
  docker tag busybox localhost:$port/busybox
  docker push localhost:$port/busybox

  export REGISTRY_CONFIGURATION_PATH=$config           # for the commands below
  $state/registry user add alice
  $state/registry grant add user:alice 'team/*' push
  $state/registry grant add anonymous busybox pull

  make image    builds it as the image registry:latest
  scripts/registry.sh down     stops it
EOF
