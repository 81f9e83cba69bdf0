# The store: Valkey 9 on ElastiCache with durability sync, or MemoryDB. Both keep what they have
# acknowledged through a failover: docs/scaling.md.

locals {
  is_memorydb     = var.store == "memorydb"
  store_node_type = coalesce(var.store_node_type, local.is_memorydb ? "db.r7g.large" : "cache.r7g.large")
  store_address = one(concat(
    aws_elasticache_replication_group.this[*].configuration_endpoint_address,
    [for cluster in aws_memorydb_cluster.this : cluster.cluster_endpoint[0].address],
  ))
  store_url = "rediss://${local.store_address}:6379"

  # What receivers and summarizers need, and no more: no CONFIG, no FLUSHALL, no KEYS. The tests run
  # both with these rights.
  store_access = "on ~lizmon:* resetchannels -@all +@read +@write +@scripting +@connection -@dangerous +info +time +wait +cluster|slots +cluster|keyslot +cluster|info +cluster|shards"
}

resource "random_password" "store" {
  length  = 64
  special = false
}

resource "aws_ssm_parameter" "store_password" {
  name   = "${local.parameter_prefix}/store-password"
  type   = "SecureString"
  key_id = aws_kms_key.this.arn
  value  = random_password.store.result
  tags   = local.tags
}

# ---- ElastiCache

resource "aws_elasticache_subnet_group" "this" {
  count      = local.is_memorydb ? 0 : 1
  name       = var.name
  subnet_ids = var.private_subnet_ids
  tags       = local.tags
}

resource "aws_elasticache_parameter_group" "this" {
  count       = local.is_memorydb ? 0 : 1
  name        = var.name
  family      = "valkey${split(".", var.valkey_version)[0]}"
  description = "${var.name}: a cluster that evicts nothing"
  tags        = local.tags

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_user" "lizmon" {
  count         = local.is_memorydb ? 0 : 1
  user_id       = "${var.name}-lizmon"
  user_name     = "lizmon"
  engine        = "valkey"
  access_string = local.store_access
  tags          = local.tags

  authentication_mode {
    type      = "password"
    passwords = [random_password.store.result]
  }
}

resource "aws_elasticache_user_group" "this" {
  count         = local.is_memorydb ? 0 : 1
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = [aws_elasticache_user.lizmon[0].user_id]
  tags          = local.tags
}

resource "aws_elasticache_replication_group" "this" {
  # checkov:skip=CKV_AWS_31: a user with an access string and a password in place of AUTH's one password for everything
  count                = local.is_memorydb ? 0 : 1
  replication_group_id = var.name
  description          = "${var.name}: journal and summaries"
  engine               = "valkey"
  engine_version       = var.valkey_version
  node_type            = local.store_node_type
  port                 = 6379
  parameter_group_name = aws_elasticache_parameter_group.this[0].name
  subnet_group_name    = aws_elasticache_subnet_group.this[0].name
  security_group_ids   = [aws_security_group.store.id]
  user_group_ids       = [aws_elasticache_user_group.this[0].user_group_id]

  # Durability needs cluster mode, Multi-AZ with a replica, and TLS.
  durability                 = "sync"
  cluster_mode               = "enabled"
  num_node_groups            = var.store_shards
  replicas_per_node_group    = var.store_replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = aws_kms_key.this.arn

  snapshot_retention_limit   = var.store_snapshot_days
  auto_minor_version_upgrade = true
  apply_immediately          = false
  tags                       = local.tags

  lifecycle {
    precondition {
      condition     = startswith(local.store_node_type, "cache.")
      error_message = "store_node_type of ElastiCache begins with cache."
    }
  }
}

# ---- MemoryDB

resource "aws_memorydb_subnet_group" "this" {
  count      = local.is_memorydb ? 1 : 0
  name       = var.name
  subnet_ids = var.private_subnet_ids
  tags       = local.tags
}

resource "aws_memorydb_user" "lizmon" {
  count         = local.is_memorydb ? 1 : 0
  user_name     = "lizmon"
  access_string = local.store_access
  tags          = local.tags

  authentication_mode {
    type      = "password"
    passwords = [random_password.store.result]
  }
}

resource "aws_memorydb_acl" "this" {
  count      = local.is_memorydb ? 1 : 0
  name       = var.name
  user_names = [aws_memorydb_user.lizmon[0].user_name]
  tags       = local.tags
}

resource "aws_memorydb_cluster" "this" {
  count                      = local.is_memorydb ? 1 : 0
  name                       = var.name
  description                = "${var.name}: journal and summaries"
  engine                     = "redis"
  engine_version             = var.memorydb_version
  node_type                  = local.store_node_type
  port                       = 6379
  acl_name                   = aws_memorydb_acl.this[0].name
  subnet_group_name          = aws_memorydb_subnet_group.this[0].name
  security_group_ids         = [aws_security_group.store.id]
  num_shards                 = var.store_shards
  num_replicas_per_shard     = var.store_replicas
  tls_enabled                = true
  kms_key_arn                = aws_kms_key.this.arn
  snapshot_retention_limit   = var.store_snapshot_days
  auto_minor_version_upgrade = true
  tags                       = local.tags

  lifecycle {
    precondition {
      condition     = startswith(local.store_node_type, "db.")
      error_message = "store_node_type of MemoryDB begins with db."
    }
  }
}
