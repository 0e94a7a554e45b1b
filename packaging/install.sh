#!/bin/sh
# Installs phi3v for this user, on Linux or macOS:
#
#     curl -fsSL https://github.com/phi3v/phi3v/releases/latest/download/install.sh | sh
#
# The archive is checked against the release's SHA-256 sums before anything is put anywhere. PHI3V_VERSION names a version,
# PHI3V_INSTALL_DIR the folder of the program (~/.local/bin), PHI3V_DOWNLOAD another place that has a release's files.
set -eu

fail() {
    echo "phi3v: $1" >&2
    exit 1
}

target() { # of this machine
    system=$(uname -s) machine=$(uname -m)
    case $machine in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "there is no program for $machine; build it from the source" ;;
    esac
    case $system in
    Darwin)
        # a shell that Rosetta translates is told of a processor of Intel's
        [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" != 1 ] || machine=aarch64
        echo "$machine-apple-darwin"
        ;;
    Linux)
        libc=$(libc "$machine") || exit 1
        echo "$machine-unknown-linux-$libc"
        ;;
    *) fail "there is no program for $system; on Windows use install.ps1" ;;
    esac
}

libc() { # gnu, which finds graphics cards, where glibc is 2.28 or later; musl elsewhere
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc 2\.\([0-9]*\).*/\1/p')
    if [ "${version:-0}" -ge 28 ]; then echo gnu; return; fi
    [ "$1" = x86_64 ] || fail "a C library of glibc 2.28 or later is needed on this machine; build it from the source"
    echo musl
}

fetch() { # URL FILE
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --output "$2" "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --output-document="$2" "$1"
    else
        fail "curl or wget is needed"
    fi || fail "$1 cannot be downloaded"
}

sum() { # FILE
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

main() {
    releases=https://github.com/phi3v/phi3v/releases
    place=${PHI3V_DOWNLOAD:-$releases/${PHI3V_VERSION:+download/v$PHI3V_VERSION}}
    [ -n "${PHI3V_DOWNLOAD:-}${PHI3V_VERSION:-}" ] || place=$releases/latest/download
    folder=${PHI3V_INSTALL_DIR:-$HOME/.local/bin}
    target=$(target)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    fetch "$place/SHA256SUMS" "$work/SHA256SUMS"
    line=$(grep -- "-$target.tar.gz\$" "$work/SHA256SUMS") || fail "the release has no archive for $target"
    archive=${line#*  }
    case $archive in */* | .*) fail "the release's sums are damaged" ;; esac
    fetch "$place/$archive" "$work/$archive"
    [ "$(sum "$work/$archive")" = "${line%% *}" ] || fail "$archive is damaged: its SHA-256 sum is not the release's"
    tar -xzf "$work/$archive" -C "$work"
    mkdir -p "$folder"
    # a new file under the name, so that one that runs is not written over
    cp "$work/${archive%.tar.gz}/phi3v" "$folder/.phi3v.new"
    mv -f "$folder/.phi3v.new" "$folder/phi3v"
    "$folder/phi3v" --version || fail "the program does not run on this machine; build it from the source"
    echo "installed in $folder"
    case :$PATH: in
    *:"$folder":*) ;;
    *) echo "put it on the path: export PATH=\"$folder:\$PATH\"" ;;
    esac
    echo "ask the demo model that is built in: phi3v ask PICTURE \"What is written here?\""
}

main
