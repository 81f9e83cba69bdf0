# Who may do what. The table in README.md says it in words, and the tests ask these documents.

data "aws_iam_policy_document" "instances" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# ---- Receivers and summarizers

resource "aws_iam_role" "member" {
  for_each           = local.groups
  name               = each.value
  description        = "${var.name}: instances of the group ${each.value}"
  assume_role_policy = data.aws_iam_policy_document.instances.json
  tags               = local.tags
}

resource "aws_iam_instance_profile" "member" {
  for_each = local.groups
  name     = each.value
  role     = aws_iam_role.member[each.key].name
  tags     = local.tags
}

resource "aws_iam_role_policy" "member" {
  for_each = local.groups
  name     = "lizmon"
  role     = aws_iam_role.member[each.key].id
  policy   = data.aws_iam_policy_document.member[each.key].json
}

data "aws_iam_policy_document" "member" {
  # checkov:skip=CKV_AWS_356: cloudwatch:PutMetricData has no resources; the namespace is its condition
  # checkov:skip=CKV_AWS_111: cloudwatch:PutMetricData has no resources; the namespace is its condition
  for_each = local.groups

  # Its own join token alone: the CA's instance tags each parameter with the one instance that may
  # read it, and the instance's credentials carry its ARN.
  statement {
    sid       = "OwnJoinToken"
    actions   = ["ssm:GetParameter", "ssm:DeleteParameter"]
    resources = ["${local.parameter_arn}${local.join_prefix}/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/${local.instance_tag}"
      values   = ["$${ec2:SourceInstanceARN}"]
    }
  }

  statement {
    sid     = "Settings"
    actions = ["ssm:GetParameter"]
    resources = [
      "${local.parameter_arn}${local.fingerprint_parameter}",
      aws_ssm_parameter.store_password.arn,
    ]
  }

  statement {
    sid       = "DecryptParameters"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["ssm.${local.region}.amazonaws.com"]
    }

    condition {
      test     = "StringLike"
      variable = "kms:EncryptionContext:PARAMETER_ARN"
      values   = ["${local.parameter_arn}${local.parameter_prefix}/*"]
    }
  }

  # The group's own, not the instance's own alone, which IAM cannot say: README.md, "What is left".
  statement {
    sid       = "OwnLifecycle"
    actions   = ["autoscaling:CompleteLifecycleAction"]
    resources = [local.group_arns[each.key]]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [var.name]
    }
  }

  dynamic "statement" {
    for_each = length(local.package_objects[each.key]) == 0 ? [] : [local.package_objects[each.key]]

    content {
      sid       = "Packages"
      actions   = ["s3:GetObject"]
      resources = statement.value
    }
  }
}

# ---- The CA

resource "aws_iam_role" "ca" {
  name               = "${var.name}-ca"
  description        = "${var.name}: the CA's instance"
  assume_role_policy = data.aws_iam_policy_document.instances.json
  tags               = local.tags
}

resource "aws_iam_instance_profile" "ca" {
  name = "${var.name}-ca"
  role = aws_iam_role.ca.name
  tags = local.tags
}

resource "aws_iam_role_policy" "ca" {
  name   = "lizmon"
  role   = aws_iam_role.ca.id
  policy = data.aws_iam_policy_document.ca.json
}

data "aws_iam_policy_document" "ca" {
  # checkov:skip=CKV_AWS_356: autoscaling:DescribeAutoScalingGroups and cloudwatch:PutMetricData have no resources
  # checkov:skip=CKV_AWS_111: cloudwatch:PutMetricData has no resources; the namespace is its condition

  # It writes tokens, and cannot read or replace what it wrote.
  statement {
    sid       = "WriteJoinTokens"
    actions   = ["ssm:PutParameter", "ssm:AddTagsToResource"]
    resources = ["${local.parameter_arn}${local.join_prefix}/*"]
  }

  statement {
    sid       = "PublishFingerprint"
    actions   = ["ssm:PutParameter", "ssm:GetParameter"]
    resources = ["${local.parameter_arn}${local.fingerprint_parameter}"]
  }

  # Advanced parameters are encrypted by a data key.
  statement {
    sid       = "EncryptParameters"
    actions   = ["kms:Encrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.this.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["ssm.${local.region}.amazonaws.com"]
    }
  }

  # Which instances wait to join, as the autoscaling groups say: nothing that an instance says counts.
  statement {
    sid       = "WhoWaits"
    actions   = ["autoscaling:DescribeAutoScalingGroups"]
    resources = ["*"]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [var.name]
    }
  }

  dynamic "statement" {
    for_each = length(local.package_objects["ca"]) == 0 ? [] : [local.package_objects["ca"]]

    content {
      sid       = "Packages"
      actions   = ["s3:GetObject"]
      resources = statement.value
    }
  }
}

# What Session Manager's agent needs. AmazonSSMManagedInstanceCore would also read every parameter.
resource "aws_iam_role_policy" "ca_session" {
  count  = var.session_manager ? 1 : 0
  name   = "session-manager"
  role   = aws_iam_role.ca.id
  policy = data.aws_iam_policy_document.session.json
}

data "aws_iam_policy_document" "session" {
  # checkov:skip=CKV_AWS_356: these actions have no resources
  # checkov:skip=CKV_AWS_111: these actions have no resources
  statement {
    sid = "SessionManager"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

locals {
  # The packages of each role, and those of them that are in S3.
  role_packages = { for role in ["receiver", "summarizer", "ca"] : role => [var.packages["lizctl"], var.packages[role]] }
  package_objects = {
    for role, packages in local.role_packages : role => [
      for package in packages : "arn:${local.partition}:s3:::${trimprefix(package.url, "s3://")}"
      if startswith(package.url, "s3://")
    ]
  }
}
