output "url" {
  description = "Where monitors publish: append /api/perf."
  value       = local.issuer
}

output "balancer_dns_name" {
  description = "What `domain` must point to, where zone_id is null."
  value       = aws_lb.this.dns_name
}

output "ca_url" {
  description = "For `lizctl join` inside the VPC."
  value       = local.ca_url
}

output "ca_instance_id" {
  description = "The CA's instance: operators work there through Session Manager, if they allow it."
  value       = aws_instance.ca.id
}

output "ca_fingerprint_parameter" {
  description = "Name of the SSM parameter with the fingerprint of the root, for --ca-fingerprint."
  value       = local.fingerprint_parameter
}

output "group_names" {
  description = "Autoscaling groups by role."
  value       = local.groups
}

output "store_url" {
  description = "The store, as for `lizctl store status`."
  value       = local.store_url
}

output "store_password_parameter" {
  description = "Name of the SSM parameter with the password of the store's user lizmon."
  value       = aws_ssm_parameter.store_password.name
}

output "member_role_arns" {
  description = "Roles of the instances by role, for a bucket policy of the packages, for instance."
  value       = merge({ for role, resource in aws_iam_role.member : role => resource.arn }, { ca = aws_iam_role.ca.arn })
}
