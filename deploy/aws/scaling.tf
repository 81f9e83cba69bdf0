# Scaling on CPU, of both groups, and on requests, of receivers. A network balancer counts bytes, not
# requests: bytes_per_request turns one into the other.

resource "aws_autoscaling_policy" "cpu" {
  for_each               = aws_autoscaling_group.this
  name                   = "${each.value.name}-cpu"
  autoscaling_group_name = each.value.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.cpu_target_percent

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "requests" {
  name                   = "${var.name}-receiver-requests"
  autoscaling_group_name = aws_autoscaling_group.this["receiver"].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.requests_per_receiver

    customized_metric_specification {
      metrics {
        id          = "bytes"
        return_data = false

        metric_stat {
          stat = "Sum"

          metric {
            namespace   = "AWS/NetworkELB"
            metric_name = "ProcessedBytes_TCP"

            dimensions {
              name  = "LoadBalancer"
              value = aws_lb.this.arn_suffix
            }
          }
        }
      }

      metrics {
        id          = "receivers"
        return_data = false

        metric_stat {
          stat = "Average"

          metric {
            namespace   = "AWS/AutoScaling"
            metric_name = "GroupInServiceInstances"

            dimensions {
              name  = "AutoScalingGroupName"
              value = local.groups["receiver"]
            }
          }
        }
      }

      metrics {
        id          = "requests"
        label       = "requests a second for each receiver"
        expression  = "bytes / ${var.bytes_per_request} / 60 / receivers"
        return_data = true
      }
    }
  }
}
