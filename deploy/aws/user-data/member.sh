# A new instance becomes a receiver or a summarizer: it installs the packages, joins with its one-time
# token, starts, and leaves the launch hook. If any of that fails until the deadline, it says so to the
# hook, and the group replaces it.
#
# Terraform puts `#!/bin/bash` and the settings BOOT_… before this text; cloud-init runs it once, as
# root. Settings are no secrets. The token is only in a variable of this shell and in a pipe: on no
# command line, in no file, in no log. Its parameter is deleted once it is spent.
# shellcheck shell=bash disable=SC2154
set -euo pipefail
export HOME=/root AWS_DEFAULT_REGION=$BOOT_REGION AWS_PAGER='' DEBIAN_FRONTEND=noninteractive

folder=/var/lib/lizmon-$BOOT_ROLE
certs=$folder/certs
unit=lizmon-$BOOT_ROLE.service
instance=

say() { printf 'lizmon: %s\n' "$*" >&2; }

# Only version 2 of the metadata service: a token first.
imds() {
    local token
    token=$(curl -fsS --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        http://169.254.169.254/latest/api/token) || return 1
    curl -fsS --max-time 5 -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}

leave_hook() {
    aws autoscaling complete-lifecycle-action --auto-scaling-group-name "$BOOT_GROUP" \
        --lifecycle-hook-name "$BOOT_LAUNCH_HOOK" --instance-id "$instance" --lifecycle-action-result "$1"
}

finish() {
    local status=$?
    trap - EXIT
    ((status)) || return 0
    say "failed ($status): the group replaces this instance"
    leave_hook ABANDON || say "the hook was not told: its time limit ends this instance"
    exit "$status"
}

# Until it succeeds or the deadline is near, with longer and longer pauses, each cut by up to a half so
# that many instances do not ask at once. 3 is a refusal, which does not mend itself.
retry() {
    local pause=1 status
    while true; do
        status=0
        "$@" || status=$?
        ((status != 0 && status != 3)) || return "$status"
        if ((SECONDS + pause > BOOT_DEADLINE_SECS)); then
            say "gave up after $SECONDS s: $1"
            return "$status"
        fi
        sleep "$((pause / 2)).$((RANDOM % 10))"
        sleep "$((pause / 2))"
        pause=$((pause < 16 ? pause * 2 : 16))
    done
}

# A package by its URL, which is nothing to trust; its SHA-256 is.
fetch() {
    case $1 in
    s3://*) aws s3 cp --only-show-errors "$1" "$2" ;;
    https://*) curl -fsSL --proto '=https' --max-time 120 -o "$2" "$1" ;;
    *) return 3 ;;
    esac || return 1
    printf '%s  %s\n' "$3" "$2" | sha256sum --check --status || {
        say "$1 does not have the SHA-256 $3"
        return 3
    }
}

install_packages() {
    local place url sha256 files=()
    place=$(mktemp -d)
    while read -r -u 3 url sha256; do
        files+=("$place/${url##*/}")
        retry fetch "$url" "${files[-1]}" "$sha256"
    done 3< <(xargs -n 2 <<<"$BOOT_PACKAGES")
    # Without a network to Debian's mirrors this is all that is needed.
    dpkg --install "${files[@]}" || {
        retry apt-get update -qq
        apt-get install --yes -qq --fix-broken
    }
    rm -r "$place"
}

parameter() { aws ssm get-parameter --name "$1" "${@:2}" --query Parameter.Value --output text; }

learn_fingerprint() {
    fingerprint=$(parameter "$BOOT_FINGERPRINT_PARAMETER") || return 1
    [[ $fingerprint =~ ^[0-9a-f]{64}$ ]]
}

join() {
    local token
    token=$(parameter "$BOOT_JOIN_PREFIX/$instance" --with-decryption) || return 1
    [[ $token == "$instance".* ]] || return 3
    # printf is of this shell: what it prints is in no process list.
    printf '%s\n' "$token" |
        lizctl join "$BOOT_CA_URL" --token - --ca-fingerprint "$fingerprint" --out "$certs"
}

forget_token() { aws ssm delete-parameter --name "$BOOT_JOIN_PREFIX/$instance"; }

fetch_crls() {
    curl -fsS --max-time 10 --cacert "$certs/root.crt" -o "$certs/crl.pem" "$BOOT_CA_URL/crl"
}

# The unit hands it to the program: LoadCredential=lizmon-store-password
learn_password() {
    local password
    password=$(parameter "$BOOT_PASSWORD_PARAMETER" --with-decryption) || return 1
    install -d -m 0700 /etc/credstore
    (
        umask 077
        printf '%s' "$password" >/etc/credstore/lizmon-store-password
    )
}

# ["10.0.0.0/24", "10.0.1.0/24"]
toml_list() {
    local words list
    read -ra words <<<"$1"
    printf -v list '"%s", ' "${words[@]}"
    printf '[%s]' "${list%, }"
}

write_settings() {
    install -d -m 0755 /etc/lizmon
    {
        cat <<EOF
# Written by the instance's user data.
cert = "$certs/$instance.crt"
key = "$certs/$instance.key"
ca = "$certs/root.crt"
crl = "$certs/crl.pem"
ca-url = "$BOOT_CA_URL"
store = "$BOOT_STORE_URL"
store-user = "$BOOT_STORE_USER"
store-password-file = "/run/credentials/$unit/lizmon-store-password"
store-durability = "service"
EOF
        [[ $BOOT_ROLE == receiver ]] && cat <<EOF
listen = "0.0.0.0:8443"
data = "$folder/data"
min-replicas = 0
issuer = "$BOOT_ISSUER"
audience = "$BOOT_ISSUER"
connection-age = "$BOOT_CONNECTION_AGE"
proxy-protocol = $(toml_list "$BOOT_PROXY_CIDRS")
EOF
        true
    } >"/etc/lizmon/$BOOT_ROLE.toml"
}

# Drains when the group ends this instance, and tells CloudWatch how it is.
install_lifecycle() {
    base64 -d <<<"$BOOT_LIFECYCLE_SCRIPT" >/usr/local/sbin/lizmon-lifecycle
    chmod 0755 /usr/local/sbin/lizmon-lifecycle
    cat >/etc/lizmon/lifecycle.env <<EOF
AWS_DEFAULT_REGION=$BOOT_REGION
ROLE=$BOOT_ROLE
GROUP=$BOOT_GROUP
TERMINATE_HOOK=$BOOT_TERMINATE_HOOK
METRICS_NAMESPACE=$BOOT_METRICS_NAMESPACE
INSTANCE=$instance
EOF
    cat >/etc/systemd/system/lizmon-lifecycle.service <<'EOF'
[Unit]
Description=lizmon: drains when the autoscaling group ends this instance
After=network-online.target

[Service]
EnvironmentFile=/etc/lizmon/lifecycle.env
ExecStart=/usr/local/sbin/lizmon-lifecycle
Restart=on-failure
RestartSec=5
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
# systemd asks for it of who stops a unit.
CapabilityBoundingSet=CAP_SYS_ADMIN

[Install]
WantedBy=multi-user.target
EOF
}

trap finish EXIT
instance_of_imds() { instance=$(imds instance-id) && [[ $instance =~ ^i-[0-9a-f]+$ ]]; }
retry instance_of_imds
say "$instance becomes a $BOOT_ROLE"
if ! command -v aws >/dev/null; then
    retry apt-get update -qq
    retry apt-get install --yes -qq --no-install-recommends awscli
fi
install_packages
install -d -m 0700 -o lizmon -g lizmon "$folder" "$certs"
retry learn_fingerprint
retry join
retry forget_token || say "the spent token's parameter stays until it expires"
retry fetch_crls
chown lizmon:lizmon "$certs"/*
retry learn_password
write_settings
install_lifecycle
systemctl daemon-reload
# Type=notify: it returns once the program serves.
systemctl enable --now "$unit"
systemctl enable --now lizmon-lifecycle.service
retry leave_hook CONTINUE
say "$instance serves after $SECONDS s"
