#!/usr/bin/env bash
# Fuzzes one parser, or all in turn: scripts/fuzz.sh TARGET|all [SECONDS] [LIBFUZZER OPTION ...]
#
# Works with stable Rust: the compiler's own coverage pass and libFuzzer, which cargo builds from
# source. There is no address sanitizer, which only nightly has: no parser has `unsafe` code that it
# could look into. Debug assertions and overflow checks are on.
#
# Inputs that are new in coverage stay in target/fuzz/corpus/TARGET; those that are kept for everybody
# are in fuzz/corpus/TARGET. An input that breaks something is left in target/fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2)
target=${1:-}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
if [[ $target != all ]] && ! grep -qx -- "$target" <<<"$targets" || [[ ! $seconds =~ ^[0-9]+$ ]]; then
    echo "usage: $0 TARGET|all [SECONDS] [LIBFUZZER OPTION ...]" >&2
    echo "targets:" $targets >&2
    exit 2
fi
[[ $target == all ]] && build=(--bins) || build=(--bin "$target")

# With a target named, the flags reach neither build scripts nor macros, which run here and now.
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
    --cfg fuzzing
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
RUSTFLAGS="${flags[*]}" cargo build --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz \
    --target "$host" "${build[@]}"

fuzz() {
    local name=$1
    shift
    local found=target/fuzz/corpus/$name artifacts=target/fuzz/artifacts/$name/
    local options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$artifacts")
    mkdir -p "$found" "$artifacts"
    if [[ -e fuzz/dict/$name.dict ]]; then
        options+=(-dict="fuzz/dict/$name.dict")
    fi
    echo "fuzz: $name for $seconds s"
    "target/fuzz/$host/release/$name" "${options[@]}" "$@" "$found" "fuzz/corpus/$name" || {
        echo "fuzz: $name is broken by the input above; once it is mended, keep the input:" >&2
        echo "    cp $artifacts<input> fuzz/corpus/$name/regression-<what>" >&2
        return 1
    }
}

if [[ $target == all ]]; then
    failed=()
    for name in $targets; do
        fuzz "$name" "$@" || failed+=("$name")
    done
    if ((${#failed[@]})); then
        echo "fuzz: broken: ${failed[*]}" >&2
        exit 1
    fi
else
    fuzz "$target" "$@"
fi
