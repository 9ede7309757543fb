#!/bin/sh
# Installs what the demo and the end-to-end tests need from Debian's packages: a real Dovecot and Postfix
# as upstream, real mail clients, and a C compiler for the two dependencies written in C.
# Guarantees: says what it installs before it does; installs only what is missing; starts no service.
# Leaves the configuration in /etc/postfix and /etc/dovecot as the packages make it: the lab never reads it.
#
#   install.sh            everything
#   install.sh build      only what compiling needs
set -eu

BUILD="ca-certificates gcc libc6-dev make"
SERVERS="dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd postfix openssl"
CLIENTS="swaks libnet-ssleay-perl curl isync libsasl2-modules fetchmail python3"

case "${1:-all}" in
    build) wanted="$BUILD" ;;
    all) wanted="$BUILD $SERVERS $CLIENTS" ;;
    *) echo "usage: $0 [build|all]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install.sh: this is not a Debian system (no dpkg-query). Install these by hand: $wanted" >&2
    exit 1
fi

missing=""
for package in $wanted; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "install.sh: these packages are missing, and installing them needs root or sudo:$missing" >&2
    echo "  fix: as root, run: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "Installing from Debian:$missing"

policy=/usr/sbin/policy-rc.d
made_policy=no
put_policy_away() {
    if [ "$made_policy" = yes ]; then
        made_policy=no
        $as_root rm -f "$policy"
    fi
}
trap put_policy_away EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ ! -e "$policy" ]; then
    made_policy=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=500 -q "$@"
}
log=$(mktemp)
quietly() {
    if ! apt "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        echo "install.sh: apt-get $* failed; what it said is above" >&2
        exit 1
    fi
}
quietly update
# shellcheck disable=SC2086  # a list of words on purpose
quietly install -y --no-install-recommends $missing
rm -f "$log"
echo "Installed. No service was started."
