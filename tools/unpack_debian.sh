#!/usr/bin/env bash
# Downloads packages from Debian's archive and unpacks them into a folder. Nothing is installed, and the lists of the machine's own
# apt are not changed.
#
#   tools/unpack_debian.sh FOLDER ARCHITECTURES PACKAGE ... [--depends PATTERN]
#
#   FOLDER         is replaced
#   ARCHITECTURES  separated by spaces, the default one first: "amd64 arm64"
#   PACKAGE        a name, or name:architecture
#   --depends      also unpack each package whose whole name matches PATTERN (an extended regular expression) and on which
#                  one of the given packages depends, directly or indirectly
set -euo pipefail

die() {
  echo "error: $*" >&2
  exit 1
}

[ $# -ge 3 ] || die "expected FOLDER ARCHITECTURES PACKAGE ..., got $# arguments"
root=$(realpath -m "$1")
read -ra architectures <<<"$2"
shift 2
packages=()
pattern=
while [ $# -gt 0 ]; do
  case $1 in
    --depends) pattern=${2:?"--depends needs a pattern"} && shift ;;
    *) packages+=("$1") ;;
  esac
  shift
done
for command in apt-get dpkg-deb; do
  command -v "$command" >/dev/null || die "no $command on the PATH; this needs Debian or Ubuntu"
done

apt=$root/apt
rm -rf "$root"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root/debs"
: >"$apt/status"
cat >"$apt/apt.conf" <<END
APT::Architecture "${architectures[0]}";
APT::Architectures { $(printf '"%s"; ' "${architectures[@]}")};
APT::Sandbox::User "root";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
END
export APT_CONFIG=$apt/apt.conf

cd "$root/debs"
apt-get -qq update
if [ -n "$pattern" ]; then
  mapfile -t found < <(
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
      "${packages[@]}" | grep -oxE "$pattern" | sort -u
  )
  [ ${#found[@]} -gt 0 ] || die "no dependency of ${packages[*]} matches $pattern"
  packages+=("${found[@]}")
fi
apt-get -qq download "${packages[@]}"
for deb in *.deb; do dpkg-deb -x "$deb" "$root"; done
rm -rf "$root/debs" "$apt"
