//! What somebody has to see to, in words: for health, and for the log.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;
use lizmon_mtls::revocation::CrlStatus;
use lizmon_mtls::trust::{Complaint, Loaded, Trust};

/// How trust is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judge {
    /// How long past its end a revocation list is put up with: seconds.
    pub crl_grace: u64,
    /// Whether lists are fetched: then the file of lists only says what to begin with.
    pub fetches_lists: bool,
}

impl Judge {
    /// Everything that is not as it should be.
    pub fn warnings(self, trust: &Trust, now: u64) -> Vec<String> {
        let lists = trust.crls().iter();
        let lists = lists.filter_map(|list| self.of_list(list, now));
        let complaints = self.complaints(trust).map(ToString::to_string);
        let loaded = trust.loaded();
        let ends = loaded.filter_map(|loaded| of_authority(&loaded, now));
        lists
            .chain(complaints)
            .chain(of_own(trust, now))
            .chain(ends)
            .collect()
    }

    /// What of the files is not in use, and should be.
    pub fn complaints(self, trust: &Trust) -> impl Iterator<Item = &Complaint> {
        let complaints = trust.complaints().iter();
        complaints.filter(move |complaint| !(self.fetches_lists && complaint.is_older_list))
    }

    /// The list for whose end everybody is refused.
    pub fn refused_for(self, trust: &Trust, now: u64) -> Option<CrlStatus> {
        let mut lists = trust.crls().iter();
        lists
            .find(|list| list.is_required && now > self.refuses_after(list))
            .cloned()
    }

    fn refuses_after(self, list: &CrlStatus) -> u64 {
        list.next_update.saturating_add(self.crl_grace)
    }

    fn of_list(self, list: &CrlStatus, now: u64) -> Option<String> {
        if !list.is_required || !list.is_due(now) {
            return None;
        }
        let (issuer, end) = (&list.issuer, date(list.next_update));
        let last = date(self.refuses_after(list));
        let cure =
            "any lizctl command on the CA's folder, with the issuer's key there, signs a new one";
        Some(if now > self.refuses_after(list) {
            format!(
                "the revocation list of {issuer} has expired: EXPIRED, refusing everyone since {last}: {cure}"
            )
        } else if now > list.next_update {
            format!(
                "the revocation list of {issuer} has expired on {end}: everyone is refused from {last} on: {cure}"
            )
        } else {
            format!(
                "the revocation list of {issuer} is past half its life: it ends on {end}, and everyone is refused from {last} on: {cure}"
            )
        })
    }
}

fn of_own(trust: &Trust, now: u64) -> Option<String> {
    let own = trust.own();
    own.is_late(now).then(|| match now > own.not_after {
        true => "our own certificate has ended".to_owned(),
        false => "our own certificate ends soon, and was not renewed".to_owned(),
    })
}

fn of_authority(loaded: &Loaded, now: u64) -> Option<String> {
    if !loaded.is_ending_authority(now) {
        return None;
    }
    let (subject, end) = (&loaded.subject, date(loaded.not_after));
    let (what, cure) = match loaded.part {
        "root" => ("root", "lizctl rotate root --next"),
        _ => ("issuing CA", "lizctl rotate issuing --next"),
    };
    Some(match now > loaded.not_after {
        true => format!(
            "the {what} {subject} is EXPIRED since {end}: nobody below it is let in, see `{cure}`"
        ),
        false => format!(
            "the {what} {subject} ends on {end}, and everybody below it is refused then: replace it in time, with `{cure}`"
        ),
    })
}

/// RFC 3339.
pub(crate) fn date(epoch: u64) -> String {
    // Dates beyond the year 9999 have no such form.
    const LAST: u64 = 253_402_300_799;
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(epoch.min(LAST))).to_string()
}
