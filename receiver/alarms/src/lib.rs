//! Alarm rules: judged on closed intervals, told by webhook, Alertmanager, mail or a command.
