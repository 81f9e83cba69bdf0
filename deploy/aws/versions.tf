terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The first with `durability` of aws_elasticache_replication_group.
      version = ">= 6.51"
    }
    random = {
      source  = "hashicorp/random"
      version = ">= 3.6"
    }
  }
}
