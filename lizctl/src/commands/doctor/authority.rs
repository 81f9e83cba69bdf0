//! `liz-ca`: whether it can be reached, and how old its CRLs are.

use lizmon_enrol::EnrolError;
use lizmon_enrol::crls::CrlSource;
use lizmon_pki::error_chain::in_one_line;

use super::report::{Report, Subject};
use super::target::Target;
use super::{certificates, network, receiver};

/// Fetches the CRLs as a daemon does, and judges them and our certificate by them.
pub(super) async fn check(target: &Target, now: u64, report: &mut Report) {
    let Some(url) = &target.ca_url else {
        return;
    };
    if !network::check(url, Subject::Authority, report).await {
        return;
    }
    let Some(ca) = target.ca.clone() else {
        return report.skipped(
            Subject::Authority,
            format_args!("{url} listens; TLS needs the file of roots"),
        );
    };
    let source = CrlSource {
        url: url.clone(),
        ca,
    };
    match source.fetch().await {
        Ok(fetched) => {
            report.ok(
                Subject::Authority,
                format_args!("{url} is trusted, and gives its CRLs"),
            );
            certificates::check_crls(&fetched.pem, url.as_str(), now, report);
            certificates::check_revocation(&fetched.pem, target, now, report);
        }
        Err(EnrolError::Connect(error)) => {
            receiver::connection_failed(&error, Subject::Authority, report);
        }
        Err(error) => report.failed(
            Subject::Authority,
            "no-crls",
            in_one_line(&error),
            "is it liz-ca, which listens on 8444 by default? Its log has the reason",
        ),
    }
}
