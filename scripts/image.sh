#!/usr/bin/env bash
# Builds the container image `registry:latest`, or `google/pause:latest`, and loads it into the local
# Docker engine; without one, only writes the archive for `docker load`.
#
#   scripts/image.sh                                  release build, static where libc.a is there
#   scripts/image.sh --image pause                    the program that holds a service's network
#   scripts/image.sh --binary PATH                    puts this program in instead of building one
#   scripts/image.sh --tag NAME:TAG --output FILE     another name, another place for the archive
#
# The image starts from nothing: the program, its configuration, certificates of authorities, and
# for a dynamic program the libraries that `ldd` lists. It is put together here, not by an engine,
# so nothing is pulled, no root is needed, and the same program and commit give the same bytes.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

fail() {
    echo "image: $1" >&2
    exit 1
}

image=registry
binary=
tag=
output=
while (($#)); do
    [[ $# -ge 2 && -n $2 ]] || usage
    case $1 in
        --image) image=$2 ;;
        --binary) binary=$2 ;;
        --tag) tag=$2 ;;
        --output) output=$2 ;;
        *) usage ;;
    esac
    shift 2
done
case $image in
    registry) title=roadstead description="A private container registry" tag=${tag:-registry:latest} ;;
    pause) title=pause description="Holds the namespaces of a service" tag=${tag:-google/pause:latest} ;;
    *) fail "there is no image \`$image\`: registry or pause" ;;
esac
output=${output:-target/$image-image.tar}
# The tag is written into JSON as it is.
[[ $tag =~ ^[a-z0-9][a-z0-9._:/-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || fail "\`$tag\` is not of the form name:tag"

case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(uname -m) ;;
esac

if [[ -z $binary ]]; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    # With --target the flags do not reach build scripts, and the result has a folder of its own.
    # A static glibc resolves names without loading anything from version 2.34 on.
    if [[ $(gcc -print-file-name=libc.a) == /* ]]; then
        RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
            cargo build --release --package "$image" --target "$host"
    else
        cargo build --release --package "$image" --target "$host"
    fi
    binary=$(cargo metadata --format-version 1 --no-deps |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$host/release/$image
fi
[[ -x $binary ]] || fail "there is no program at $binary"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{dev,etc,proc,run,sys}
install -D -m 755 "$binary" "$root/bin/$image"
libraries=$(ldd "$binary" 2>/dev/null || true)
[[ $libraries != *"not found"* ]] || fail "a library of $binary is missing: $libraries"
linkage=static
for library in $(grep -o '/[^ ]*' <<<"$libraries"); do
    linkage="dynamic, with its libraries"
    install -D -m 755 "$library" "$root$library"
done

if [[ $image == registry ]]; then
    # Docker gives a new volume the mode of this folder: `--user` may then write to it.
    install -d -m 1777 "$root/tmp" "$root/var/lib/registry"
    # The program sees by the name it is called that it is the entry point.
    ln -s /bin/registry "$root/entrypoint.sh"
    # registry:2 starts with the first path, registry:3 with the second. As one file, a configuration
    # mounted at either is the one that is served, and never passed over for the open default.
    install -D -m 644 crates/registry/src/config/default.yml "$root/etc/docker/registry/config.yml"
    mkdir -p "$root/etc/distribution" "$root/etc/ssl/certs"
    ln -s /etc/docker/registry/config.yml "$root/etc/distribution/config.yml"
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    printf '%s\n' 'root:x:0:0:root:/:/sbin/nologin' 'nobody:x:65534:65534:nobody:/:/sbin/nologin' >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nobody:x:65534:' >"$root/etc/group"
    # Without it the C library asks the name server first, and /etc/hosts only if there is none.
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    run='"Entrypoint": ["/entrypoint.sh"],
    "Cmd": ["/etc/distribution/config.yml"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "OTEL_TRACES_EXPORTER=none"],
    "WorkingDir": "/",
    "ExposedPorts": {"5000/tcp": {}},
    "Volumes": {"/var/lib/registry": {}},'
    labels='"io.roadstead.tls": "true",'
else
    run='"Entrypoint": ["/bin/pause"],
    "User": "65534:65534",
    "WorkingDir": "/",'
    labels=
fi

archive() {
    # GNU tar: order, owners and times say nothing about this machine.
    tar --create --format=ustar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner \
        --directory "$1" --file "$2" "${@:3}"
}

mapfile -t entries < <(cd "$root" && ls -A)
archive "$root" "$work/layer.tar" "${entries[@]}"
cat >"$work/config.json" <<JSON
{
  "architecture": "$architecture",
  "os": "linux",
  "created": "$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)",
  "config": {
    $run
    "Labels": {
      $labels
      "org.opencontainers.image.title": "$title",
      "org.opencontainers.image.description": "$description",
      "org.opencontainers.image.version": "$version",
      "org.opencontainers.image.revision": "$revision",
      "org.opencontainers.image.licenses": "Apache-2.0"
    }
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)"]},
  "history": [{"created_by": "scripts/image.sh"}]
}
JSON
echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$tag\"],\"Layers\":[\"layer.tar\"]}]" >"$work/manifest.json"
mkdir -p "$(dirname "$output")"
archive "$work" "$output" manifest.json config.json layer.tar

mib() {
    awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'
}
echo "image $tag: $(mib "$work/layer.tar"), program $(mib "$binary") ($linkage), archive $output"
if docker version >/dev/null 2>&1; then
    docker load --input "$output"
else
    echo "no Docker engine answers here; where one does, load the image with"
    echo "    docker load --input $output        # or: podman load --input $output"
fi
