#!/usr/bin/env bash
# Build and run the images without a Docker engine: `docker/README.md` says what it needs, shows and costs.
#
#     docker/try.sh cpu|gpu|test [option of buildah build]...
set -euo pipefail

target=${1:-}
case $target in
cpu | gpu | test) shift ;;
*)
    echo "usage: docker/try.sh cpu|gpu|test [option of buildah build]..." >&2
    exit 2
    ;;
esac
[ "$(id -u)" = 0 ] || { echo "docker/try.sh: debootstrap and buildah's chroot isolation need root" >&2 && exit 2; }
for tool in buildah debootstrap python3; do
    command -v "$tool" >/dev/null || { echo "docker/try.sh: install $tool first" >&2 && exit 2; }
done

top=$(cd "$(dirname "$0")/.." && pwd)
work=${TRY_DIR:-/var/tmp/mlp-accel-try} # kept, so that a second try is quicker
suite=${TRY_SUITE:-trixie}
user=54321:54321 # any id that the image does not know
image=localhost/mlp-accel:$target
mkdir -p "$work"

say() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

store() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

# The base image ---------------------------------------------------------------------------------------------------------------

base=localhost/debian:$suite
if ! store inspect --type image "$base" >/dev/null 2>&1; then
    say "base image from debootstrap: $suite"
    script=/usr/share/debootstrap/scripts/$suite # a release newer than this debootstrap is made as sid is
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format "\$(REPO_URI)" | grep -v security | head -n 1)} # as apt is set up here
    rm -rf "${work:?}/$suite"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$suite" "$work/$suite" "$mirror" "$script" >"$work/debootstrap.log"
    tar --directory "$work/$suite" --create --file "$work/$suite.tar" .
    container=$(store from scratch)
    store add "$container" "$work/$suite.tar" / >/dev/null
    store config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    store commit --rm "$container" "$base" >/dev/null
    rm -rf "${work:?}/$suite" "$work/$suite.tar"
fi

# The image --------------------------------------------------------------------------------------------------------------------

say "building the target $target"
python=$(store from "$base")
version=$(store run --isolation chroot "$python" -- python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
store rm "$python" >/dev/null
# --format docker: the OCI format has no health check.
store build --isolation chroot --format docker --file "$top/docker/Dockerfile" --target "$target" --tag "$image" \
    --build-arg "CPU_BASE=$base" --build-arg "GPU_BASE=$base" --build-arg "GPU_PYTHON=$version" "$@" "$top"

setting() { # a list from the image's configuration, one item per line
    store inspect --type image "$image" |
        python3 -c 'import functools, json, sys; print(*functools.reduce(dict.get, sys.argv[1:], json.load(sys.stdin)) or [], sep="\n")' \
            Docker config "$@"
}
mapfile -t entrypoint < <(setting Entrypoint)
mapfile -t default < <(setting Cmd)
mapfile -t health < <(setting Healthcheck Test)
mapfile -t environment < <(setting Env)
say "entrypoint: ${entrypoint[*]}; command: ${default[*]}; health check: ${health[*]}"

# Running it -------------------------------------------------------------------------------------------------------------------

container=$(store from "$image")
root=$(store mount "$container")
trap 'store umount "$container" >/dev/null; store rm "$container" >/dev/null' EXIT
du --summarize --human-readable --one-file-system "$root"

expect() { # STATUS COMMAND...: run it as buildah does, as a user id that the image does not know
    local status=$1 found=0
    shift
    say "$*"
    store run --isolation chroot --user "$user" "$container" -- "$@" || found=$?
    [ "$found" = "$status" ] || { echo "docker/try.sh: exit status $found in place of $status" >&2 && exit 1; }
}

read_only() { # COMMAND...: the same on a root file system that is mounted read-only, with a volume in the place of /cache
    say "read-only: $*"
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --pid --fork sh -euc '
        root=$1 user=$2
        shift 2
        mount --bind "$root" "$root"
        mount -t tmpfs -o mode=1777 cache "$root/cache"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        if chroot --userspec="$user" "$root" touch /results/probe 2>/dev/null; then echo "not read-only" >&2; exit 1; fi
        exec chroot --userspec="$user" "$root" "$@"
    ' sh "$root" "$user" env --ignore-environment "${environment[@]}" "$@"
}

case $target in
cpu)
    expect 0 "${entrypoint[@]}" doctor
    expect 0 "${health[@]:1}"
    expect 0 "${entrypoint[@]}" train --epochs 1
    expect 0 "${entrypoint[@]}" "${default[@]}"
    read_only "${entrypoint[@]}" train --epochs 1
    read_only "${entrypoint[@]}" "${default[@]}" --epochs 1 --json - >/dev/null
    ;;
gpu)
    # Here is no driver: that must be what it says, and it must not run on the CPU instead.
    expect 3 "${entrypoint[@]}" doctor | tee "$work/doctor.txt"
    grep --quiet 'no driver' "$work/doctor.txt"
    expect 3 "${entrypoint[@]}" train --epochs 1
    ;;
test) expect 0 "${entrypoint[@]}" "${default[@]}" ;;
esac
say "done"
