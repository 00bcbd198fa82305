#!/usr/bin/env bash
# Makes a Debian or Ubuntu machine ready to build (`build`), to run the whole (`up`), to build and
# test (`test`), to build and measure (`bench`), or to build and fuzz (`fuzz`).
#
# Installs only what is missing, so it costs next to nothing when run again. Without root, or on
# another system, it says what to install and exits 1.
set -euo pipefail

# Command that must be there, and the Debian package it comes from.
build_tools=(
    "gcc gcc"
    "ld binutils"
)
up_tools=(
    "dockerd docker.io"
    "docker docker.io"
    "iptables iptables"
    "ip iproute2"
    "mkfs.ext4 e2fsprogs"
)
test_tools=(
    "skopeo skopeo"
    "podman podman"
    "buildah buildah"
    "crun crun"
    "curl curl"
    "jq jq"
    "openssl openssl"
    "htpasswd apache2-utils"
    "strace strace"
    "unshare util-linux"
    "mount mount"
    "docker-registry docker-registry"
)
# Packages known by a file instead of a command.
build_files=(
    "/usr/include/stdio.h libc6-dev"
    "/etc/ssl/certs/ca-certificates.crt ca-certificates"
)
up_files=(
    "/usr/lib/cni/bridge containernetworking-plugins"
)
test_files=(
    "/bin/busybox busybox-static"
    "/etc/containers/policy.json golang-github-containers-common"
)
# Newer Debian: the docker command is a package apart from the engine.
docker_cli=docker-cli

mode=${1:-}
case $mode in
    build) ;;
    up)
        build_tools+=("${up_tools[@]}")
        build_files+=("${up_files[@]}")
        ;;
    test)
        build_tools+=("${up_tools[@]}" "${test_tools[@]}")
        build_files+=("${up_files[@]}" "${test_files[@]}")
        ;;
    bench) build_tools+=("docker-registry docker-registry" "nginx nginx-light") ;;
    fuzz) build_tools+=("c++ g++") ;;
    *)
        echo "usage: $0 build|up|test|bench|fuzz" >&2
        exit 2
        ;;
esac

# Daemons live where an ordinary user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

list_missing() {
    local entry subject package
    for entry in "${build_tools[@]}"; do
        read -r subject package <<<"$entry"
        command -v "$subject" >/dev/null || echo "$package"
    done
    for entry in "${build_files[@]}"; do
        read -r subject package <<<"$entry"
        [[ -e $subject ]] || echo "$package"
    done
}

# True when the static busybox is there: the dynamic one cannot run in an empty image.
busybox_is_static() {
    [[ ! -e /bin/busybox ]] || ! ldd /bin/busybox >/dev/null 2>&1
}

mapfile -t missing < <(list_missing | sort -u)
if [[ $mode == test ]] && ! busybox_is_static; then
    missing+=(busybox-static)
fi

if ((${#missing[@]})); then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "missing packages (Debian names): ${missing[*]}" >&2
        echo "hint: install them, on Debian or Ubuntu with" >&2
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    available=()
    for package in "${missing[@]}"; do
        # A name that this release does not know would make apt refuse them all.
        if apt-cache show "$package" >/dev/null 2>&1; then
            available+=("$package")
        fi
    done
    if ! command -v docker >/dev/null && [[ $mode == test || $mode == up ]] &&
        apt-cache show "$docker_cli" >/dev/null 2>&1; then
        available+=("$docker_cli")
    fi
    # The tests start an engine of their own; the packaged one need not run.
    apt-get install -q -y --no-install-recommends "${available[@]}"
    mapfile -t missing < <(list_missing | sort -u)
    if ((${#missing[@]})); then
        echo "still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
fi

# Rust comes from rustup: distributions are behind the version the workspace asks for.
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    found=none
else
    found=$(cargo --version | cut -d' ' -f2)
fi
if [[ $found == none || $(printf '%s\n' "$wanted" "$found" | sort -V | head -n1) != "$wanted" ]]; then
    echo "rust $wanted or newer is needed, found: $found" >&2
    echo "hint: get it from https://rustup.rs, or run \`rustup update stable\`" >&2
    exit 1
fi

if [[ $mode == test ]] && ! command -v cargo-nextest >/dev/null; then
    cargo install cargo-nextest --locked
fi
