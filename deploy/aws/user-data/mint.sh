#!/bin/bash
# Runs on the CA's instance, as lizmon-mint.service: one join token for each instance that waits in the
# launch hook of a group, as the autoscaling service says. Nothing that an instance says counts: its
# group gives it the role, its id is its name.
#
# The token goes into an encrypted parameter whose tag names the one instance that may read it. This
# role cannot read it again, nor write a second one over it.
set -euo pipefail
export AWS_PAGER=''
: "${LIZMON_CERTS:?}" "${JOIN_PREFIX:?}" "${KEY:?}" "${INSTANCE_TAG:?}" "${INSTANCE_ARN_PREFIX:?}"
: "${GROUPS_BY_ROLE:?}" "${DOMAIN:?}" "${METRICS_NAMESPACE:?}"
# An instance that has not joined by then is replaced.
readonly TTL_SECS=600 POLL_SECS=${POLL_SECS:-5} REPORT_SECS=60
# Which instances have had theirs: an instance gets one token, ever.
readonly MINTED=${MINTED:-$(dirname "$LIZMON_CERTS")/minted}

say() { printf '%s\n' "$*" >&2; }

# Lines of a group and its instances that wait.
waiting() {
    aws autoscaling describe-auto-scaling-groups --auto-scaling-group-names "${!ROLES[@]}" --output text \
        --query "AutoScalingGroups[].[AutoScalingGroupName, join(' ', Instances[?LifecycleState=='Pending:Wait'].InstanceId)]"
}

# The token comes through a pipe: on a command line it would be in the process list.
store() {
    local expires
    expires=$(date -u -d "+$TTL_SECS seconds" +%FT%TZ) || return 1
    aws ssm put-parameter --name "$JOIN_PREFIX/$1" --type SecureString --key-id "$KEY" \
        --tags "Key=$INSTANCE_TAG,Value=$INSTANCE_ARN_PREFIX$1" --tier Advanced --policies \
        "[{\"Type\":\"Expiration\",\"Version\":\"1.0\",\"Attributes\":{\"Timestamp\":\"$expires\"}}]" \
        --value file:///dev/stdin >/dev/null
}

mint() {
    local role=$1 instance=$2 sans=() token
    [[ $role != receiver ]] || sans=(--san "$DOMAIN")
    token=$(lizctl join-token "$instance" --role "$role" "${sans[@]}" --ttl "${TTL_SECS}s" 2>/dev/null) || {
        say "lizctl made no token for $instance"
        return 1
    }
    # Marked first: whatever happens then, there is no second one. The group replaces an instance
    # without a token.
    : >"$MINTED/$instance"
    printf '%s' "$token" | store "$instance" || return 1
    say "a join token for the $role $instance"
}

# All instances that wait. Fails if the service could not be asked, or one token not be stored.
pass() {
    local lines words group instance failed=0
    lines=$(waiting) || return 1
    while read -r -u 3 -a words; do
        group=${words[0]}
        for instance in "${words[@]:1}"; do
            [[ $instance =~ ^i-[0-9a-f]+$ && ! -e $MINTED/$instance ]] || continue
            mint "${ROLES[$group]}" "$instance" || failed=1
        done
    done 3<<<"$lines"
    return "$failed"
}

report() {
    local count
    count=$(curl -fsSk --max-time 10 https://127.0.0.1:8444/healthz |
        python3 -c 'import json, sys; print(len(json.load(sys.stdin).get("warnings", [])))') || count=1
    aws cloudwatch put-metric-data --namespace "$METRICS_NAMESPACE" --metric-name HealthWarnings \
        --dimensions Group=ca --value "$count"
}

declare -A ROLES
for pair in $GROUPS_BY_ROLE; do ROLES[${pair#*=}]=${pair%%=*}; done
mkdir -p "$MINTED"
reported=-$REPORT_SECS
while true; do
    if ! pass; then
        say "not every instance that waits has a token"
    elif ((SECONDS - reported >= REPORT_SECS)); then
        # CloudWatch alarms where nothing is reported.
        reported=$SECONDS
        report || say "CloudWatch was not told"
    fi
    sleep "$POLL_SECS"
done
