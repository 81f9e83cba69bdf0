# Autoscaling groups of receivers and of summarizers. An instance waits in a lifecycle hook until it
# has joined and serves; one that cannot is replaced. Another hook waits until it has drained.

locals {
  group_sizes         = { receiver = var.receivers, summarizer = var.summarizers }
  heartbeat_join_secs = 600
  # SIGTERM to the end of a receiver takes 30 s at most, of a summarizer a commit of all its shards.
  heartbeat_drain_secs = 300

  # Anyone who may describe an instance can read its user data: it holds no secret.
  member_settings = {
    for role, group in local.groups : role => {
      REGION                = local.region
      ROLE                  = role
      PACKAGES              = join(" ", [for package in local.role_packages[role] : "${package.url} ${package.sha256}"])
      GROUP                 = group
      LAUNCH_HOOK           = local.launch_hook
      TERMINATE_HOOK        = local.terminate_hook
      DEADLINE_SECS         = local.heartbeat_join_secs - 60
      CA_URL                = local.ca_url
      FINGERPRINT_PARAMETER = local.fingerprint_parameter
      JOIN_PREFIX           = local.join_prefix
      STORE_URL             = local.store_url
      STORE_USER            = "lizmon"
      PASSWORD_PARAMETER    = aws_ssm_parameter.store_password.name
      ISSUER                = local.issuer
      PROXY_CIDRS           = join(" ", distinct([for subnet in data.aws_subnet.balancer : subnet.cidr_block]))
      CONNECTION_AGE        = var.connection_age
      METRICS_NAMESPACE     = var.name
      LIFECYCLE_SCRIPT      = filebase64("${path.module}/user-data/lifecycle.sh")
    }
  }
  member_user_data = {
    for role, settings in local.member_settings : role => join("", concat(
      ["#!/bin/bash\n"],
      [for name, value in settings : "BOOT_${name}='${replace(value, "'", "'\\''")}'\n"],
      [file("${path.module}/user-data/member.sh")],
    ))
  }
}

resource "aws_launch_template" "this" {
  for_each               = local.groups
  name                   = each.value
  description            = "${var.name}: instances of the group ${each.value}"
  image_id               = local.ami_id
  instance_type          = local.group_sizes[each.key].instance_type
  user_data              = base64encode(local.member_user_data[each.key])
  update_default_version = true
  ebs_optimized          = true
  tags                   = local.tags

  iam_instance_profile {
    name = aws_iam_instance_profile.member[each.key].name
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  monitoring {
    enabled = true
  }

  network_interfaces {
    associate_public_ip_address = false
    security_groups             = [local.instance_groups[each.key]]
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      encrypted             = true
      kms_key_id            = aws_kms_key.this.arn
      volume_type           = "gp3"
      volume_size           = 10
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = each.value })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = each.value })
  }
}

resource "aws_autoscaling_group" "this" {
  for_each            = local.groups
  name                = each.value
  min_size            = local.group_sizes[each.key].min
  max_size            = local.group_sizes[each.key].max
  vpc_zone_identifier = var.private_subnet_ids
  target_group_arns   = each.key == "receiver" ? [aws_lb_target_group.receiver.arn] : []
  # A receiver whose store is away is not ready, and no worse than a new one would be: the balancer
  # stops sending to it, and it stays.
  health_check_type         = "EC2"
  health_check_grace_period = 60
  default_instance_warmup   = 60
  wait_for_capacity_timeout = "15m"
  max_instance_lifetime     = 30 * 86400
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances"]

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  initial_lifecycle_hook {
    name                 = local.launch_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = local.heartbeat_join_secs
    default_result       = "ABANDON"
  }

  initial_lifecycle_hook {
    name                 = local.terminate_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = local.heartbeat_drain_secs
    default_result       = "CONTINUE"
  }

  instance_maintenance_policy {
    min_healthy_percentage = 100
    max_healthy_percentage = 150
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      auto_rollback          = true
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = each.value })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  lifecycle {
    # Scaling decides how many there are.
    ignore_changes = [desired_capacity]
  }

  # Without these an instance cannot join, and is replaced for nothing.
  depends_on = [aws_iam_role_policy.member, aws_route53_record.ca, aws_volume_attachment.ca]
}
