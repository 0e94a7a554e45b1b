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
    if command -v sha256sum >/dev/null; then
        told=$(sha256sum "$1")
    elif command -v shasum >/dev/null; then
        told=$(shasum -a 256 "$1")
    else
        fail "sha256sum or shasum is needed, to check what was downloaded"
    fi
    echo "${told%% *}"
}

real() { # FOLDER: its one name, without links
    (CDPATH='' cd -- "${1:-/}" 2>/dev/null && pwd -P)
}

try() { # TARGET: puts its program at $new, and says whether it runs there
    line=$(grep -- "-$1.tar.gz\$" "$work/SHA256SUMS") || fail "the release has no archive for $1"
    archive=${line#*  }
    case $archive in */* | .*) fail "the release's sums are damaged" ;; esac
    fetch "$place/$archive" "$work/$archive"
    sum=$(sum "$work/$archive") || exit 1
    [ "$sum" = "${line%% *}" ] || fail "$archive is damaged: its SHA-256 sum is not the release's"
    tar -xzf "$work/$archive" -C "$work" || fail "$archive cannot be unpacked"
    cp -- "$work/${archive%.tar.gz}/phi3v" "$new" || fail "$new cannot be written"
    said=$("$new" --version 2>&1)
}

main() {
    releases=https://github.com/phi3v/phi3v/releases
    version=${PHI3V_VERSION:-}
    place=${PHI3V_DOWNLOAD:-$releases/${version:+download/v${version#v}}}
    [ -n "${PHI3V_DOWNLOAD:-}$version" ] || place=$releases/latest/download
    [ -n "${PHI3V_INSTALL_DIR:-${HOME:-}}" ] || fail "HOME is not set; name a folder for the program in PHI3V_INSTALL_DIR"
    folder=${PHI3V_INSTALL_DIR:-$HOME/.local/bin}
    new=
    target=$(target)
    work=$(mktemp -d)
    trap 'rm -rf -- "$work" ${new:+"$new"}' EXIT
    # dash does not run the trap of EXIT where a signal ends it
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    fetch "$place/SHA256SUMS" "$work/SHA256SUMS"
    mkdir -p -- "$folder" || fail "$folder cannot be made; name another place in PHI3V_INSTALL_DIR"
    # as it stands on a path: from the root on, and no slash at its end
    folder=$(CDPATH='' cd -- "$folder" && pwd) || exit 1
    new=$folder/.phi3v.new
    # mv would move the program into it
    [ ! -d "$folder/phi3v" ] || fail "$folder/phi3v is a folder; name another place in PHI3V_INSTALL_DIR"
    if ! try "$target"; then
        # glibc is new enough, and yet not where programs look for it, or not for this kind of program
        [ "$target" = x86_64-unknown-linux-gnu ] && try x86_64-unknown-linux-musl ||
            fail "the program does not run on this machine ($said), and nothing was changed; build it from the source"
    fi
    # a new file under the name, so that one that runs is not written over
    mv -f -- "$new" "$folder/phi3v"
    echo "$said"
    echo "installed in $folder"
    first=$(command -v phi3v) || first=
    # a path may spell the folder otherwise, or name a link to it
    if [ -z "$first" ] || [ "$(real "${first%/*}")" != "$(real "$folder")" ]; then
        case :$PATH: in
        *:"$folder":*) echo "another program comes first on the path: $first" ;;
        *) echo "put it on the path: export PATH=\"$folder:\$PATH\"" ;;
        esac
    fi
    echo "ask the demo model that is built in: phi3v ask PICTURE \"What is written here?\""
}

main
