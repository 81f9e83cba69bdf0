# What somebody must look at. README.md says what to do about each.

locals {
  group_alarms = {
    for role, group in local.groups : role => {
      group = group
      min   = local.group_sizes[role].min
      max   = local.group_sizes[role].max
    }
  }
  # Nodes are named after the cluster, the shard and their number.
  store_nodes = [
    for pair in setproduct(range(1, var.store_shards + 1), range(1, var.store_replicas + 2)) :
    format("%s-%04d-%03d", var.name, pair[0], pair[1])
  ]
  # Receivers refuse samples above 85 % of a server's memory: docs/scaling.md, "Memory".
  store_limits = { DatabaseMemoryUsagePercentage = 70, EngineCPUUtilization = 70 }
  store_alarms = {
    for pair in setproduct(local.store_nodes, keys(local.store_limits)) :
    "${pair[0]}-${pair[1]}" => { node = pair[0], metric = pair[1] }
  }
}

resource "aws_cloudwatch_metric_alarm" "instances" {
  for_each            = local.group_alarms
  alarm_name          = "${each.value.group}-instances"
  alarm_description   = "Fewer ${each.key}s serve than the group's minimum: instances do not start, or cannot join."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupInServiceInstances"
  dimensions          = { AutoScalingGroupName = each.value.group }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.min
  period              = 60
  evaluation_periods  = 10
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "at_maximum" {
  for_each            = local.group_alarms
  alarm_name          = "${each.value.group}-at-maximum"
  alarm_description   = "The group of ${each.key}s is as large as it may get."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupDesiredCapacity"
  dimensions          = { AutoScalingGroupName = each.value.group }
  statistic           = "Minimum"
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.max
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  alarm_name          = "${var.name}-receiver-not-ready"
  alarm_description   = "A receiver's /readyz is not 200: its store is away, its CRL has ended, or it hangs."
  namespace           = "AWS/NetworkELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.receiver.arn_suffix }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "warnings" {
  alarm_name          = "${var.name}-receiver-warnings"
  alarm_description   = "A receiver's /healthz warns: of groups that nobody commits, a full server, an end of a certificate or CRL, its clock."
  namespace           = var.name
  metric_name         = "HealthWarnings"
  dimensions          = { Group = local.groups["receiver"] }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "ca_warnings" {
  alarm_name          = "${var.name}-ca-warnings"
  alarm_description   = "liz-ca warns or does not answer, or nobody makes join tokens: new instances cannot join, and certificates end after 7 days."
  namespace           = var.name
  metric_name         = "HealthWarnings"
  dimensions          = { Group = "ca" }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "ca_recovery" {
  alarm_name          = "${var.name}-ca-status"
  alarm_description   = "The CA's host has failed: EC2 starts the instance on another one."
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed_System"
  dimensions          = { InstanceId = aws_instance.ca.id }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 2
  treat_missing_data  = "breaching"
  alarm_actions       = concat(["arn:${local.partition}:automate:${local.region}:ec2:recover"], var.alarm_actions)
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "store" {
  for_each            = local.store_alarms
  alarm_name          = each.key
  alarm_description   = "A server of the store is full or busy: add shards, or larger nodes. Memory that only grows: too few summarizers."
  namespace           = local.is_memorydb ? "AWS/MemoryDB" : "AWS/ElastiCache"
  metric_name         = each.value.metric
  dimensions          = local.is_memorydb ? { ClusterName = var.name, NodeName = each.value.node } : { CacheClusterId = each.value.node }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.store_limits[each.value.metric]
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}
