#!/usr/bin/env bash
# need.sh TOOL...: makes sure that each tool is on this machine. On Debian and Ubuntu it installs what is
# missing; elsewhere it says what to install.
set -euo pipefail

has() {
  case $1 in
    postgres) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}
packages() {
  case $1 in
    gcc) echo gcc libc6-dev ;;
    postgres) echo postgresql ;;
    xmllint) echo libxml2-utils ;;
    java) echo default-jre-headless ;;
    aapt2) echo aapt ;;
    *) echo "$1" ;;
  esac
}

for tool in go node npm; do
  command -v "$tool" >/dev/null || { echo "need.sh: $tool is missing: install Go 1.26 or newer and Node.js 20 or newer" >&2; exit 1; }
done

missing=()
for tool in "$@"; do
  has "$tool" && continue
  read -ra names <<<"$(packages "$tool")"
  missing+=("${names[@]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
if ! command -v apt-get >/dev/null; then
  echo "need.sh: install these first: ${missing[*]} (macOS: brew install android-platform-tools postgresql)" >&2
  exit 1
fi
echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -qq
"${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
for tool in "$@"; do
  has "$tool" || { echo "need.sh: $tool is still missing after its package was installed" >&2; exit 1; }
done
