# The CA's instance: it installs liz-ca and lizctl, mounts the CA's volume, makes the CA if the volume has
# none, publishes the root's fingerprint, and starts liz-ca and what makes join tokens.
#
# Terraform puts `#!/bin/bash` and the settings BOOT_… before this text; cloud-init runs it once, as
# root. A new instance takes over the volume with everything on it.
# shellcheck shell=bash disable=SC2154
set -euo pipefail
export HOME=/root AWS_DEFAULT_REGION=$BOOT_REGION AWS_PAGER='' DEBIAN_FRONTEND=noninteractive

folder=/var/lib/lizmon-ca
certs=$folder/certs
deadline_secs=${BOOT_DEADLINE_SECS:-900}

say() { printf 'lizmon: %s\n' "$*" >&2; }

retry() {
    local status
    while true; do
        status=0
        "$@" || status=$?
        ((status != 0 && status != 3)) || return "$status"
        if ((SECONDS > deadline_secs)); then
            say "gave up after $SECONDS s: $1"
            return "$status"
        fi
        sleep 2
    done
}

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
    dpkg --install "${files[@]}" || {
        retry apt-get update -qq
        apt-get install --yes -qq --fix-broken
    }
    rm -r "$place"
}

# EBS volumes are NVMe devices, with the volume's id as serial number.
mount_volume() {
    local device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${BOOT_VOLUME//-/}
    retry test -b "$device"
    # Never over something that is there: only a device without any signature is new. 2: there is none.
    local status=0
    blkid --probe "$device" >/dev/null || status=$?
    case $status in
    0) ;;
    2) mkfs.ext4 -q -L lizmon-ca "$device" ;;
    *)
        say "blkid cannot tell what is on $device: $status"
        return 1
        ;;
    esac
    install -d -m 0700 "$folder"
    grep -q " $folder " /etc/fstab ||
        printf 'LABEL=lizmon-ca %s ext4 defaults,nosuid,nodev,noexec,nofail 0 2\n' "$folder" >>/etc/fstab
    mountpoint --quiet "$folder" || mount "$device" "$folder" -o nosuid,nodev,noexec
    chown lizmon-ca:lizmon-ca "$folder"
    chmod 0700 "$folder"
}

make_ca() {
    if [[ -e $certs/ledger.db ]]; then
        say "the volume has a CA"
        return
    fi
    runuser -u lizmon-ca -- lizctl init-ca --certs "$certs"
}

publish_fingerprint() {
    local fingerprint published
    fingerprint=$(openssl x509 -in "$certs/root.crt" -noout -fingerprint -sha256 |
        sed 's/.*=//; s/://g' | tr A-F a-f)
    published=$(aws ssm get-parameter --name "$BOOT_FINGERPRINT_PARAMETER" --query Parameter.Value \
        --output text 2>/dev/null) || published=
    [[ $published == "$fingerprint" ]] ||
        aws ssm put-parameter --name "$BOOT_FINGERPRINT_PARAMETER" --type String --overwrite \
            --value "$fingerprint" >/dev/null
}

# ["ca.lizmon.internal", "metrics.example"]
toml_list() {
    local words list
    read -ra words <<<"$1"
    printf -v list '"%s", ' "${words[@]}"
    printf '[%s]' "${list%, }"
}

write_settings() {
    install -d -m 0755 /etc/lizmon
    cat >/etc/lizmon/ca.toml <<EOF
# Written by the instance's user data.
listen = "0.0.0.0:8444"
certs = "$certs"
san = $(toml_list "$BOOT_CA_SANS")
EOF
    cat >/etc/lizmon/mint.env <<EOF
AWS_DEFAULT_REGION=$BOOT_REGION
LIZMON_CERTS=$certs
JOIN_PREFIX=$BOOT_JOIN_PREFIX
KEY=$BOOT_KEY
INSTANCE_TAG=$BOOT_INSTANCE_TAG
INSTANCE_ARN_PREFIX=$BOOT_INSTANCE_ARN_PREFIX
GROUPS_BY_ROLE="$BOOT_GROUPS"
DOMAIN=$BOOT_DOMAIN
METRICS_NAMESPACE=$BOOT_METRICS_NAMESPACE
EOF
}

install_mint() {
    base64 -d <<<"$BOOT_MINT_SCRIPT" >/usr/local/sbin/lizmon-mint
    chmod 0755 /usr/local/sbin/lizmon-mint
    cat >/etc/systemd/system/lizmon-mint.service <<'EOF'
[Unit]
Description=lizmon: join tokens for instances that autoscaling groups have started
After=network-online.target lizmon-ca.service

[Service]
User=lizmon-ca
Group=lizmon-ca
EnvironmentFile=/etc/lizmon/mint.env
ExecStart=/usr/local/sbin/lizmon-mint
Restart=always
RestartSec=5
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ReadWritePaths=/var/lib/lizmon-ca
PrivateTmp=yes
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
EOF
}

if ! command -v aws >/dev/null; then
    retry apt-get update -qq
    retry apt-get install --yes -qq --no-install-recommends awscli
fi
install_packages
mount_volume
make_ca
write_settings
install_mint
systemctl daemon-reload
systemctl enable --now lizmon-ca.service
# Only now can an instance that knows the fingerprint join.
retry publish_fingerprint
systemctl enable --now lizmon-mint.service
say "the CA serves after $SECONDS s"
