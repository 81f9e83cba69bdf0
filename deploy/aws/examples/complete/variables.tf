variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "zones" {
  description = "Two or three zones of the region."
  type        = list(string)
  default     = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

variable "domain" {
  description = "DNS name of the receivers, such as metrics.example.com."
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone of the domain, or null."
  type        = string
  default     = null
}

variable "client_cidrs" {
  description = "From where monitors and readers come."
  type        = list(string)
}

variable "packages" {
  description = "URL and SHA-256 of the packages receiver, summarizer, ca and lizctl."
  type = map(object({
    url    = string
    sha256 = string
  }))
}

variable "alarm_actions" {
  description = "ARNs that are told of alarms."
  type        = list(string)
  default     = []
}
