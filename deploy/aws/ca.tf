# The CA: one instance with a volume of its own, which outlives it.

resource "aws_route53_zone" "internal" {
  # checkov:skip=CKV2_AWS_38: DNSSEC signs public zones; this one is private
  # checkov:skip=CKV2_AWS_39: query logs exist for public zones; this one is private
  name    = var.ca_zone
  comment = "${var.name}: the CA"
  tags    = local.tags

  vpc {
    vpc_id = var.vpc_id
  }
}

resource "aws_route53_record" "ca" {
  zone_id = aws_route53_zone.internal.zone_id
  name    = local.ca_name
  type    = "A"
  ttl     = 60
  records = [aws_instance.ca.private_ip]
}

resource "aws_ebs_volume" "ca" {
  # checkov:skip=CKV2_AWS_9: snapshots are made by aws_dlm_lifecycle_policy.ca
  availability_zone = data.aws_subnet.private[var.private_subnet_ids[0]].availability_zone
  size              = 8
  type              = "gp3"
  encrypted         = true
  kms_key_id        = aws_kms_key.this.arn
  tags              = merge(local.tags, { Name = "${var.name}-ca", backup = "${var.name}-ca" })

  lifecycle {
    # It holds the root's key and the ledger.
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "ca" {
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.ca.id
  instance_id = aws_instance.ca.id
  # liz-ca ends in order, and the file system is clean, before the volume goes.
  stop_instance_before_detaching = true
}

resource "aws_instance" "ca" {
  ami                         = local.ami_id
  instance_type               = var.ca_instance_type
  subnet_id                   = var.private_subnet_ids[0]
  vpc_security_group_ids      = [aws_security_group.ca.id]
  iam_instance_profile        = aws_iam_instance_profile.ca.name
  associate_public_ip_address = false
  user_data_base64            = base64encode(local.ca_user_data)
  user_data_replace_on_change = true
  ebs_optimized               = true
  monitoring                  = true
  tags                        = merge(local.tags, { Name = "${var.name}-ca" })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    encrypted   = true
    kms_key_id  = aws_kms_key.this.arn
    volume_type = "gp3"
  }

  lifecycle {
    # A newer image replaces the CA when somebody decides so.
    ignore_changes = [ami]
  }
}

locals {
  # Anyone who may describe an instance can read its user data: it holds no secret.
  ca_settings = {
    REGION                = local.region
    PACKAGES              = join(" ", [for package in local.role_packages["ca"] : "${package.url} ${package.sha256}"])
    VOLUME                = aws_ebs_volume.ca.id
    CA_SANS               = join(" ", concat([local.ca_name], var.balance_enrolment ? [var.domain] : []))
    DOMAIN                = var.domain
    FINGERPRINT_PARAMETER = local.fingerprint_parameter
    JOIN_PREFIX           = local.join_prefix
    KEY                   = aws_kms_key.this.arn
    INSTANCE_TAG          = local.instance_tag
    INSTANCE_ARN_PREFIX   = local.instance_arn_prefix
    GROUPS                = join(" ", [for role, group in local.groups : "${role}=${group}"])
    METRICS_NAMESPACE     = var.name
    MINT_SCRIPT           = filebase64("${path.module}/user-data/mint.sh")
  }
  ca_user_data = join("", concat(
    ["#!/bin/bash\n"],
    [for name, value in local.ca_settings : "BOOT_${name}='${replace(value, "'", "'\\''")}'\n"],
    [file("${path.module}/user-data/ca.sh")],
  ))
}

# ---- Backups of the volume

data "aws_iam_policy_document" "snapshots_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["dlm.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "snapshots" {
  name               = "${var.name}-snapshots"
  description        = "${var.name}: daily snapshots of the CA's volume"
  assume_role_policy = data.aws_iam_policy_document.snapshots_assume.json
  tags               = local.tags
}

resource "aws_iam_role_policy_attachment" "snapshots" {
  role       = aws_iam_role.snapshots.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AWSDataLifecycleManagerServiceRole"
}

resource "aws_dlm_lifecycle_policy" "ca" {
  description        = "${var.name}: daily snapshots of the CA's volume"
  execution_role_arn = aws_iam_role.snapshots.arn
  state              = "ENABLED"
  tags               = local.tags

  policy_details {
    resource_types = ["VOLUME"]
    target_tags    = { backup = "${var.name}-ca" }

    schedule {
      name      = "daily"
      copy_tags = true

      create_rule {
        interval      = 24
        interval_unit = "HOURS"
        times         = ["03:00"]
      }

      retain_rule {
        count = var.ca_snapshot_days
      }
    }
  }
}
