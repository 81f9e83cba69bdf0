variable "name" {
  description = "Prefix of all names, such as lizmon or lizmon-test. Two in one account and region need two names."
  type        = string
  default     = "lizmon"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}$", var.name)) && !endswith(var.name, "-") && !strcontains(var.name, "--")
    error_message = "name is 2 to 16 of a-z, 0-9 and single hyphens, and starts with a letter."
  }
}

variable "tags" {
  description = "Tags of every resource that has tags."
  type        = map(string)
  default     = {}
}

# ---- Network

variable "vpc_id" {
  description = "The VPC. Its resolver must be on (enableDnsSupport, enableDnsHostnames): the CA has a name in a private zone."
  type        = string

  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id begins with vpc-."
  }
}

variable "private_subnet_ids" {
  description = "Subnets for receivers, summarizers, store and CA, in at least two zones. They reach the AWS APIs through a NAT gateway or endpoints (ssm, autoscaling, monitoring, s3)."
  type        = list(string)

  validation {
    condition     = length(var.private_subnet_ids) >= 2 && length(distinct(var.private_subnet_ids)) == length(var.private_subnet_ids)
    error_message = "private_subnet_ids needs at least two subnets, each once."
  }
}

variable "balancer_subnet_ids" {
  description = "Subnets of the balancer, one a zone: public ones, or private ones with `internal = true`."
  type        = list(string)

  validation {
    condition     = length(var.balancer_subnet_ids) >= 2 && length(distinct(var.balancer_subnet_ids)) == length(var.balancer_subnet_ids)
    error_message = "balancer_subnet_ids needs at least two subnets, each once."
  }
}

variable "internal" {
  description = "Whether the balancer has private addresses only."
  type        = bool
  default     = false
}

variable "client_cidrs" {
  description = "IPv4 ranges from which monitors and readers may connect to the balancer."
  type        = list(string)

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrnetmask(cidr))])
    error_message = "client_cidrs needs at least one IPv4 range, such as 10.0.0.0/8."
  }
}

variable "enrolment_cidrs" {
  description = "IPv4 ranges from which machines may reach the CA inside the VPC to join and renew. Receivers and summarizers of this module always may."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.enrolment_cidrs : can(cidrnetmask(cidr))])
    error_message = "enrolment_cidrs are IPv4 ranges, such as 10.0.0.0/8."
  }
}

variable "balance_enrolment" {
  description = "Whether client_cidrs reach the CA too, through port 8444 of the balancer. Without it monitors outside the VPC cannot renew."
  type        = bool
  default     = false
}

variable "api_cidrs" {
  description = "IPv4 ranges of the AWS APIs: the VPC's own where all are reached through endpoints, else the default."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.api_cidrs) > 0 && alltrue([for cidr in var.api_cidrs : can(cidrnetmask(cidr))])
    error_message = "api_cidrs are IPv4 ranges."
  }
}

variable "domain" {
  description = "DNS name by which clients reach the receivers. It is in each receiver's certificate, and in issuer and audience of the tokens."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]*[a-z0-9]$", var.domain))
    error_message = "domain is a lower-case DNS name with a dot, without one at its end."
  }
}

variable "zone_id" {
  description = "Route 53 zone that gets the record of `domain`. Null where its DNS is elsewhere: point it to the output `balancer_dns_name`."
  type        = string
  default     = null
}

variable "ca_zone" {
  description = "Private DNS zone that this module makes in the VPC, for the CA's name: ca.ZONE."
  type        = string
  default     = "lizmon.internal"

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z0-9-]+$", var.ca_zone))
    error_message = "ca_zone is a lower-case DNS name with a dot, without one at its end."
  }
}

# ---- Programs

variable "ami_id" {
  description = "Image of the instances, Debian 12 or newer on amd64 or arm64 as the packages are. Null: the newest Debian 12 of `architecture`."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]+$", var.ami_id))
    error_message = "ami_id begins with ami-."
  }
}

variable "architecture" {
  description = "Of instances and packages: arm64 or amd64."
  type        = string
  default     = "amd64"

  validation {
    condition     = contains(["arm64", "amd64"], var.architecture)
    error_message = "architecture is arm64 or amd64."
  }
}

variable "packages" {
  description = "Where lizmon's Debian packages are (s3://BUCKET/KEY or https://…), and their SHA-256. Keys: receiver, summarizer, ca, lizctl."
  type = map(object({
    url    = string
    sha256 = string
  }))

  validation {
    condition     = toset(keys(var.packages)) == toset(["ca", "lizctl", "receiver", "summarizer"])
    error_message = "packages has the keys ca, lizctl, receiver and summarizer."
  }

  validation {
    condition     = alltrue([for package in values(var.packages) : can(regex("^(s3|https)://[A-Za-z0-9._~/%+:-]+\\.deb$", package.url))])
    error_message = "The url of a package is s3://BUCKET/KEY.deb or https://HOST/PATH.deb."
  }

  validation {
    condition     = alltrue([for package in values(var.packages) : can(regex("^[0-9a-f]{64}$", package.sha256))])
    error_message = "The sha256 of a package is 64 lower-case hex digits."
  }
}

# ---- Receivers and summarizers

variable "receivers" {
  description = "Instance type of receivers, and how many there are."
  type = object({
    instance_type = optional(string, "c7i.large")
    min           = optional(number, 2)
    max           = optional(number, 6)
  })
  default = {}

  validation {
    condition     = var.receivers.min >= 2 && var.receivers.max >= var.receivers.min && var.receivers.max <= 50
    error_message = "receivers.min is at least 2, one of which may be replaced, and receivers.max is from there to 50."
  }
}

variable "summarizers" {
  description = "Instance type of summarizers, and how many there are. More than the store's 64 shards have nothing to do."
  type = object({
    instance_type = optional(string, "c7i.large")
    min           = optional(number, 2)
    max           = optional(number, 4)
  })
  default = {}

  validation {
    condition     = var.summarizers.min >= 2 && var.summarizers.max >= var.summarizers.min && var.summarizers.max <= 64
    error_message = "summarizers.min is at least 2, and summarizers.max is from there to 64."
  }
}

variable "cpu_target_percent" {
  description = "Receivers and summarizers are added above this use of their CPUs."
  type        = number
  default     = 50

  validation {
    condition     = var.cpu_target_percent >= 10 && var.cpu_target_percent <= 90
    error_message = "cpu_target_percent is 10 to 90."
  }
}

variable "requests_per_receiver" {
  description = "Receivers are added above so many requests a second for each. The balancer counts bytes, not requests: see bytes_per_request."
  type        = number
  default     = 5000

  validation {
    condition     = var.requests_per_receiver >= 1
    error_message = "requests_per_receiver is at least 1."
  }
}

variable "bytes_per_request" {
  description = "Bytes of one request and its answer on the wire, TLS and headers included."
  type        = number
  default     = 1000

  validation {
    condition     = var.bytes_per_request >= 100
    error_message = "bytes_per_request is at least 100."
  }
}

variable "connection_age" {
  description = "Age after which a receiver asks a client to connect again, so that new receivers get their share."
  type        = string
  default     = "15m"

  validation {
    condition     = can(regex("^[1-9][0-9]*(s|m|h)$", var.connection_age))
    error_message = "connection_age is a time such as 15m."
  }
}

# ---- Store

variable "store" {
  description = "elasticache: Valkey 9 with durability sync. memorydb: Amazon MemoryDB."
  type        = string
  default     = "elasticache"

  validation {
    condition     = contains(["elasticache", "memorydb"], var.store)
    error_message = "store is elasticache or memorydb."
  }
}

variable "store_node_type" {
  description = "Node type of the store. Null: cache.r7g.large or db.r7g.large. With durability: families R6g, R7g, R8g, M6g, M7g, M8g, C7gn, C8gn."
  type        = string
  default     = null

  validation {
    condition     = var.store_node_type == null || can(regex("^(cache|db)\\.(r6g|r7g|r8g|m6g|m7g|m8g|c7gn|c8gn)\\.", var.store_node_type))
    error_message = "store_node_type begins with cache. or db., and is of a family that can be durable."
  }
}

variable "store_shards" {
  description = "Primaries of the store."
  type        = number
  default     = 2

  validation {
    condition     = var.store_shards >= 1 && var.store_shards <= 64
    error_message = "store_shards is 1 to 64: a lizmon store has 64 shards."
  }
}

variable "store_replicas" {
  description = "Replicas of each primary, in other zones."
  type        = number
  default     = 1

  validation {
    condition     = var.store_replicas >= 1 && var.store_replicas <= 5
    error_message = "store_replicas is 1 to 5: durability needs one."
  }
}

variable "valkey_version" {
  description = "Version of Valkey on ElastiCache: 9.0 or newer, which durability needs."
  type        = string
  default     = "9.0"

  validation {
    condition     = can(regex("^(9|[1-9][0-9])\\.[0-9]+$", var.valkey_version))
    error_message = "valkey_version is 9.0 or newer."
  }
}

variable "memorydb_version" {
  description = "Version of the Redis OSS engine on MemoryDB: 7.0 or newer."
  type        = string
  default     = "7.1"

  validation {
    condition     = can(regex("^([7-9]|[1-9][0-9])\\.[0-9]+$", var.memorydb_version))
    error_message = "memorydb_version is 7.0 or newer."
  }
}

variable "store_snapshot_days" {
  description = "Days for which the store's daily snapshots are kept."
  type        = number
  default     = 7

  validation {
    condition     = var.store_snapshot_days >= 1 && var.store_snapshot_days <= 35
    error_message = "store_snapshot_days is 1 to 35."
  }
}

# ---- CA

variable "ca_instance_type" {
  description = "Instance type of the CA."
  type        = string
  default     = "t3.small"
}

variable "ca_snapshot_days" {
  description = "Daily snapshots of the CA's volume that are kept."
  type        = number
  default     = 14

  validation {
    condition     = var.ca_snapshot_days >= 2 && var.ca_snapshot_days <= 365
    error_message = "ca_snapshot_days is 2 to 365."
  }
}

variable "session_manager" {
  description = "Whether operators reach the CA's instance through Session Manager. ami_id must have its agent."
  type        = bool
  default     = false
}

# ---- Alarms

variable "alarm_actions" {
  description = "ARNs that are told of alarms, such as an SNS topic."
  type        = list(string)
  default     = []
}

variable "deletion_protection" {
  description = "Whether the balancer refuses to be deleted. False only for trials."
  type        = bool
  default     = true
}
