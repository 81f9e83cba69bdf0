# What may talk to what. Everything else is closed, each direction on its own.
#
#   clients --443--> balancer --8443--> receivers --6379--> store
#                                       summarizers --6379--> store
#   receivers, summarizers, enrolment_cidrs --8444--> CA
#   all instances --443--> AWS APIs

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "The balancer: clients in, receivers out"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-balancer" })
}

resource "aws_security_group" "receiver" {
  name        = "${var.name}-receiver"
  description = "Receivers: the balancer in"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-receiver" })
}

resource "aws_security_group" "summarizer" {
  name        = "${var.name}-summarizer"
  description = "Summarizers: nothing in"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-summarizer" })
}

resource "aws_security_group" "store" {
  name        = "${var.name}-store"
  description = "The store: receivers and summarizers in, nothing out"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-store" })
}

resource "aws_security_group" "ca" {
  name        = "${var.name}-ca"
  description = "The CA: enrolment in"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-ca" })
}

locals {
  instance_groups = {
    receiver   = aws_security_group.receiver.id
    summarizer = aws_security_group.summarizer.id
    ca         = aws_security_group.ca.id
  }
  members = { for role, group in local.instance_groups : role => group if role != "ca" }

  api_egress = {
    for pair in setproduct(keys(local.instance_groups), var.api_cidrs) :
    "${pair[0]} ${pair[1]}" => { role = pair[0], cidr = pair[1] }
  }
}

# ---- The balancer

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = toset(var.client_cidrs)
  security_group_id = aws_security_group.balancer.id
  description       = "Monitors and readers"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "clients_enrol" {
  for_each          = toset(var.balance_enrolment ? var.client_cidrs : [])
  security_group_id = aws_security_group.balancer.id
  description       = "Monitors that join and renew"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 8444
  to_port           = 8444
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_receivers" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Connections and health checks"
  referenced_security_group_id = aws_security_group.receiver.id
  ip_protocol                  = "tcp"
  from_port                    = 8443
  to_port                      = 8443
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_ca" {
  count                        = var.balance_enrolment ? 1 : 0
  security_group_id            = aws_security_group.balancer.id
  description                  = "Enrolment and health checks"
  referenced_security_group_id = aws_security_group.ca.id
  ip_protocol                  = "tcp"
  from_port                    = 8444
  to_port                      = 8444
}

resource "aws_vpc_security_group_ingress_rule" "receivers_from_balancer" {
  security_group_id            = aws_security_group.receiver.id
  description                  = "Connections and health checks"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8443
  to_port                      = 8443
}

resource "aws_vpc_security_group_ingress_rule" "ca_from_balancer" {
  count                        = var.balance_enrolment ? 1 : 0
  security_group_id            = aws_security_group.ca.id
  description                  = "Enrolment through the balancer, and health checks"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8444
  to_port                      = 8444
}

# ---- The store

resource "aws_vpc_security_group_ingress_rule" "store" {
  for_each                     = local.members
  security_group_id            = aws_security_group.store.id
  description                  = "From ${each.key}s"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

resource "aws_vpc_security_group_egress_rule" "to_store" {
  for_each                     = local.members
  security_group_id            = each.value
  description                  = "Journal and summaries"
  referenced_security_group_id = aws_security_group.store.id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

# ---- The CA

resource "aws_vpc_security_group_ingress_rule" "ca_from_members" {
  for_each                     = local.members
  security_group_id            = aws_security_group.ca.id
  description                  = "Enrolment, renewal and CRLs of ${each.key}s"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 8444
  to_port                      = 8444
}

resource "aws_vpc_security_group_ingress_rule" "ca_from_machines" {
  for_each          = toset(var.enrolment_cidrs)
  security_group_id = aws_security_group.ca.id
  description       = "Machines that join and renew"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 8444
  to_port           = 8444
}

resource "aws_vpc_security_group_egress_rule" "to_ca" {
  for_each                     = local.members
  security_group_id            = each.value
  description                  = "Enrolment, renewal and CRLs"
  referenced_security_group_id = aws_security_group.ca.id
  ip_protocol                  = "tcp"
  from_port                    = 8444
  to_port                      = 8444
}

# ---- AWS APIs and packages

resource "aws_vpc_security_group_egress_rule" "apis" {
  for_each          = local.api_egress
  security_group_id = local.instance_groups[each.value.role]
  description       = "AWS APIs, and packages at a start"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# ---- The balancer itself: TCP alone, so that mutual TLS reaches the receiver

resource "aws_lb" "this" {
  # checkov:skip=CKV_AWS_91: a network balancer writes access logs of TLS listeners only, and this one has none
  name                             = var.name
  load_balancer_type               = "network"
  internal                         = var.internal
  subnets                          = var.balancer_subnet_ids
  security_groups                  = [aws_security_group.balancer.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = local.tags
}

resource "aws_lb_target_group" "receiver" {
  name     = "${var.name}-receiver"
  vpc_id   = var.vpc_id
  port     = 8443
  protocol = "TCP"
  # Receivers take the client's address from the PROXY header, and only from the balancer's subnets:
  # so the balancer must connect from its own addresses.
  proxy_protocol_v2  = true
  preserve_client_ip = "false"
  # A receiver that drains asks its clients to connect again: within 30 s after SIGTERM.
  deregistration_delay = 60
  tags                 = local.tags

  health_check {
    protocol            = "HTTPS"
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "receivers" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "TCP"
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.receiver.arn
  }
}

resource "aws_lb_target_group" "ca" {
  count    = var.balance_enrolment ? 1 : 0
  name     = "${var.name}-ca"
  vpc_id   = var.vpc_id
  port     = 8444
  protocol = "TCP"
  # liz-ca counts attempts by address, and knows no PROXY header: it must see the client's.
  preserve_client_ip = "true"
  tags               = local.tags

  health_check {
    protocol            = "HTTPS"
    path                = "/readyz"
    matcher             = "200"
    interval            = 30
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_target_group_attachment" "ca" {
  count            = var.balance_enrolment ? 1 : 0
  target_group_arn = aws_lb_target_group.ca[0].arn
  target_id        = aws_instance.ca.id
  port             = 8444
}

resource "aws_lb_listener" "enrolment" {
  count             = var.balance_enrolment ? 1 : 0
  load_balancer_arn = aws_lb.this.arn
  port              = 8444
  protocol          = "TCP"
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.ca[0].arn
  }
}

resource "aws_route53_record" "receivers" {
  count   = var.zone_id == null ? 0 : 1
  zone_id = var.zone_id
  name    = var.domain
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = true
  }
}
