# lizmon on AWS: what is where, and what may talk to what, is in README.md.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_subnet" "private" {
  for_each = toset(var.private_subnet_ids)
  id       = each.value
}

data "aws_subnet" "balancer" {
  for_each = toset(var.balancer_subnet_ids)
  id       = each.value
}

data "aws_ami" "debian" {
  count       = var.ami_id == null ? 1 : 0
  most_recent = true
  # Debian's account: https://wiki.debian.org/Cloud/AmazonEC2Image
  owners = ["136693071363"]

  filter {
    name   = "name"
    values = ["debian-12-${var.architecture}-*"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  tags      = merge({ application = var.name }, var.tags)
  ami_id    = var.ami_id == null ? one(data.aws_ami.debian[*].id) : var.ami_id

  ca_name = "ca.${var.ca_zone}"
  ca_url  = "https://${local.ca_name}:8444"
  issuer  = "https://${var.domain}"

  # Names are known before the resources: instances' rights are limited to these.
  groups = { for role in ["receiver", "summarizer"] : role => "${var.name}-${role}" }
  group_arns = {
    for role, group in local.groups :
    role => "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${group}"
  }
  launch_hook    = "join"
  terminate_hook = "drain"

  parameter_prefix      = "/${var.name}"
  join_prefix           = "${local.parameter_prefix}/join"
  fingerprint_parameter = "${local.parameter_prefix}/ca-fingerprint"
  parameter_arn         = "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter"

  # The tag of a join token's parameter that says which instance may read it.
  instance_tag        = "lizmon-instance"
  instance_arn_prefix = "arn:${local.partition}:ec2:${local.region}:${local.account}:instance/"
}
