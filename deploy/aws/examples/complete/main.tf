# A VPC with three zones, and lizmon in it.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.51"
    }
  }
}

provider "aws" {
  region = var.region
}

resource "aws_vpc" "this" {
  # checkov:skip=CKV2_AWS_11: an example; where flow logs go is the site's choice
  cidr_block           = "10.20.0.0/16"
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = "lizmon" }
}

# The default group of a VPC lets its members talk; nothing here uses it.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  for_each          = { for index, zone in var.zones : zone => index }
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, each.value)
  tags              = { Name = "lizmon-private-${each.key}" }
}

resource "aws_subnet" "public" {
  for_each          = { for index, zone in var.zones : zone => index }
  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(aws_vpc.this.cidr_block, 8, 100 + each.value)
  tags              = { Name = "lizmon-public-${each.key}" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_eip" "nat" {
  # checkov:skip=CKV2_AWS_19: the address of the NAT gateway
  domain = "vpc"
}

resource "aws_nat_gateway" "this" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[var.zones[0]].id
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this.id
  }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this.id
  }
}

resource "aws_route_table_association" "public" {
  for_each       = aws_subnet.public
  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  for_each       = aws_subnet.private
  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

module "lizmon" {
  source = "../.."

  vpc_id              = aws_vpc.this.id
  private_subnet_ids  = [for zone in var.zones : aws_subnet.private[zone].id]
  balancer_subnet_ids = [for zone in var.zones : aws_subnet.public[zone].id]
  client_cidrs        = var.client_cidrs
  balance_enrolment   = true
  domain              = var.domain
  zone_id             = var.zone_id
  packages            = var.packages
  alarm_actions       = var.alarm_actions

  # Instances fetch packages and reach the AWS APIs as they start.
  depends_on = [aws_route_table_association.private, aws_route_table_association.public]
}

output "url" {
  description = "Where monitors publish: append /api/perf."
  value       = module.lizmon.url
}

output "ca_url" {
  description = "For `lizctl join` inside the VPC."
  value       = module.lizmon.ca_url
}

output "ca_fingerprint_parameter" {
  description = "Name of the SSM parameter with the fingerprint of the root."
  value       = module.lizmon.ca_fingerprint_parameter
}
