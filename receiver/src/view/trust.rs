//! Certificates and CRLs.

use lizmon_mtls::trust::Trust;
use lizmon_page::badge::{Badge, BadgeLevel};
use lizmon_page::frame::Paging;
use lizmon_page::trust::{
    CERTIFICATES_PER_PAGE, CertificateRow, CrlRow, OwnCertificateRow, TrustPage,
};
use lizmon_protocol::certificate::SeenCertificate;
use lizmon_protocol::name::Role;

use super::sources::PageSources;
use crate::authorize::{Permit, ViewPage};

/// The certificates whose name or role is like this, and the CRLs in force.
pub(crate) fn trust(
    permit: &Permit<ViewPage>,
    sources: PageSources<'_>,
    search: String,
    page: u64,
) -> TrustPage {
    let seen = sources.seen.list_for_page(permit, sources.now);
    let wanted = search.to_ascii_lowercase();
    let is_like = |certificate: &SeenCertificate| {
        let identity = &certificate.identity;
        let may_see = match identity.role {
            _ if !permit.is_limited() || identity == permit.viewer() => true,
            Role::Node => {
                let tags = sources.table.tags(&identity.name);
                permit.shows(identity.name.as_str(), &tags)
            }
            // Who else there is concerns who sees all hosts.
            _ => false,
        };
        let name = identity.name.as_str().to_ascii_lowercase();
        may_see && (name.contains(&wanted) || identity.role.as_str().contains(&wanted))
    };
    let mut found: Vec<_> = seen.certificates.into_iter().filter(is_like).collect();
    found.sort_by_key(|certificate| certificate.not_after);
    let paging = Paging::new(page, CERTIFICATES_PER_PAGE, found.len() as u64);
    let of_page = found.iter().skip(paging.first()).take(paging.size());
    TrustPage {
        search,
        now: sources.now,
        since: seen.since,
        is_complete: seen.complete,
        paging,
        certificates: of_page.map(|seen| certificate(sources, seen)).collect(),
        crls: crls(sources.trust, sources.now),
        own: own(sources.trust, sources.now),
    }
}

fn certificate(sources: PageSources<'_>, seen: &SeenCertificate) -> CertificateRow {
    let identity = &seen.identity;
    let serial = hex::decode(&seen.serial).unwrap_or_default();
    let is_revoked = sources.trust.revokes(&seen.issuer, &serial);
    let badge = is_revoked.then(|| Badge::new(BadgeLevel::Bad, "Revoked"));
    CertificateRow {
        role: identity.role.to_string(),
        name: identity.name.to_string(),
        serial: seen.serial.clone(),
        issuer: seen.issuer.clone(),
        end: seen.not_after,
        last_seen: seen.last_seen,
        may_be_revoked: identity.role == Role::Node && !is_revoked,
        badges: badge.into_iter().collect(),
    }
}

fn crls(trust: &Trust, now: u64) -> Vec<CrlRow> {
    let crls = trust.crls().iter().map(|crl| {
        let mut badges = Vec::new();
        if crl.next_update < now {
            badges.push(Badge::new(BadgeLevel::Bad, "Expired"));
        } else if crl.is_due(now) {
            badges.push(Badge::new(BadgeLevel::Warn, "Past half its life"));
        }
        if crl.is_concurrent {
            badges.push(Badge::new(BadgeLevel::Note, "Beside a later one"));
        }
        let number = crl.number.as_ref();
        CrlRow {
            issuer: crl.issuer.clone(),
            number: number.map_or_else(|| "none".to_owned(), ToString::to_string),
            this_update: crl.this_update,
            next_update: crl.next_update,
            badges,
        }
    });
    crls.collect()
}

fn own(trust: &Trust, now: u64) -> Vec<OwnCertificateRow> {
    let own = trust.loaded().map(|loaded| {
        let is_late = match loaded.part {
            "own" => trust.own().is_late(now),
            _ => loaded.is_expiring_authority(now),
        };
        let badge = match loaded.not_after < now {
            true => Some(Badge::new(BadgeLevel::Bad, "Expired")),
            false => is_late.then(|| Badge::new(BadgeLevel::Warn, "Not renewed")),
        };
        let part = match loaded.part {
            "own" => "this receiver",
            part => part,
        };
        OwnCertificateRow {
            part: part.to_owned(),
            subject: loaded.subject,
            begin: loaded.not_before,
            end: loaded.not_after,
            badges: badge.into_iter().collect(),
        }
    });
    own.collect()
}
