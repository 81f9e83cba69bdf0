#!/bin/bash
# Runs on receivers and summarizers, as lizmon-lifecycle.service. When the autoscaling group wants to end
# the instance, it stops the program, which drains, and only then lets the group go on. Once a minute it
# tells CloudWatch how many warnings the program has.
set -euo pipefail
export AWS_PAGER=''
: "${ROLE:?}" "${GROUP:?}" "${TERMINATE_HOOK:?}" "${METRICS_NAMESPACE:?}" "${INSTANCE:?}"
readonly UNIT=lizmon-$ROLE.service POLL_SECS=${POLL_SECS:-5} REPORT_SECS=60

say() { printf '%s\n' "$*" >&2; }

target_state() {
    local token
    token=$(curl -fsS --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
        http://169.254.169.254/latest/api/token) || return 1
    curl -fsS --max-time 5 -H "X-aws-ec2-metadata-token: $token" \
        http://169.254.169.254/latest/meta-data/autoscaling/target-lifecycle-state
}

leave_hook() {
    aws autoscaling complete-lifecycle-action --auto-scaling-group-name "$GROUP" \
        --lifecycle-hook-name "$TERMINATE_HOOK" --instance-id "$INSTANCE" --lifecycle-action-result CONTINUE
}

# A receiver says its warnings. What does not answer has one.
warnings() {
    if [[ $ROLE == receiver ]]; then
        curl -fsSk --max-time 10 https://127.0.0.1:8443/healthz |
            python3 -c 'import json, sys; print(len(json.load(sys.stdin).get("warnings", [])))'
    else
        systemctl is-active --quiet "$UNIT" && echo 0
    fi
}

report() {
    local count
    count=$(warnings) || count=1
    aws cloudwatch put-metric-data --namespace "$METRICS_NAMESPACE" --metric-name HealthWarnings \
        --dimensions "Group=$GROUP" --value "$count"
}

reported=-$REPORT_SECS
while true; do
    if [[ $(target_state || true) == Terminated ]]; then
        say "the group ends this instance: stopping $UNIT"
        systemctl stop "$UNIT" || say "$UNIT did not stop in order"
        until leave_hook; do sleep 5; done
        say "drained"
        exit 0
    fi
    if ((SECONDS - reported >= REPORT_SECS)); then
        reported=$SECONDS
        report || say "CloudWatch was not told"
    fi
    sleep "$POLL_SECS"
done
