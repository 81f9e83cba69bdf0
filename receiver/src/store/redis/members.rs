//! Who shares the store, and what they tell each other.
//!
//! Whoever can write to the servers can write here: what is too much to be of receivers is not
//! read.

use std::time::Duration;

use redis::FromRedisValue;
use uuid::Uuid;

use super::super::error::StoreError;
use super::super::members::{Member, MemberRole, Members, SharedTrust};
use super::super::signing::PublishedKey;
use super::error::RedisStoreError;
use super::{RedisStore, keys};

/// How many CRLs are looked at: several for each CA of a site.
const CRLS_MAX: &str = "64";
/// The longest CRL that is read, with the certificates beside it: what is pushed is shorter.
const CRL_BYTES_MAX: u64 = 24 << 20;
/// How many members, and how many published keys, are looked at.
const MEMBERS_MAX: usize = 1_024;

impl RedisStore {
    /// Adds a field of a hash for so many milliseconds, or removes it (0). All that are there.
    fn attendance(
        &mut self,
        key: &str,
        (field, text): (&str, &str),
        millis: u64,
    ) -> Result<Vec<(String, String)>, RedisStoreError> {
        let primary = self.nodes.primary_of_key(key)?;
        let mut script = self.scripts.attend.prepare_invoke();
        script.key(key).arg(field).arg(millis).arg(text);
        let answer = self.nodes.run_at(&primary, &script)?;
        let there =
            Vec::<(Vec<u8>, Vec<u8>)>::from_redis_value(answer).map_err(|_| unreadable(key))?;
        let text = |bytes| String::from_utf8(bytes).ok();
        let there = there.into_iter().take(MEMBERS_MAX);
        let there = there.filter_map(|(field, said)| Some((text(field)?, text(said)?)));
        let mut there: Vec<_> = there.collect();
        there.sort_unstable();
        Ok(there)
    }

    fn ask_for_crls<T: FromRedisValue>(
        &mut self,
        command: &str,
        arguments: &[&str],
    ) -> Result<T, RedisStoreError> {
        let primary = self.nodes.primary_of_key(keys::CRLS)?;
        let mut command = redis::cmd(command);
        command.arg(keys::CRLS).arg(arguments);
        let answer = self.nodes.ask(&primary, &command)?;
        T::from_redis_value(answer).map_err(|_| unreadable(keys::CRLS))
    }

    fn publish_crl(&mut self, name: &str, pem: &str) -> Result<(), RedisStoreError> {
        let primary = self.nodes.primary_of_key(keys::CRLS)?;
        let mut script = self.scripts.publish.prepare_invoke();
        script.key(keys::CRLS).arg(name).arg(pem);
        self.nodes.run_at(&primary, &script).map(drop)
    }
}

fn unreadable(key: &str) -> RedisStoreError {
    RedisStoreError::Malformed {
        key: key.to_owned(),
        why: "another type, or other fields".to_owned(),
    }
}

impl Members for RedisStore {
    fn attend(
        &mut self,
        role: MemberRole,
        member: Uuid,
        text: &str,
        millis: u64,
    ) -> Result<Vec<Member>, StoreError> {
        let (key, id) = (keys::members(role.name()), member.to_string());
        let there = self.attendance(&key, (&id, text), millis.max(1))?;
        let member = |(id, text): (String, String)| {
            let id = Uuid::parse_str(&id).ok()?;
            Some(Member { id, text })
        };
        Ok(there.into_iter().filter_map(member).collect())
    }

    fn present(&mut self, role: MemberRole) -> Result<usize, StoreError> {
        // Nobody has this identifier, so nobody is removed.
        let nobody = Uuid::nil().to_string();
        let there = self.attendance(&keys::members(role.name()), (&nobody, ""), 0)?;
        Ok(there.len())
    }

    fn time(&mut self) -> Result<Option<Duration>, StoreError> {
        let primary = self.nodes.primary_of_key(keys::STORE)?;
        let answer = self.nodes.ask(&primary, &redis::cmd("TIME"))?;
        let (secs, micros) =
            <(u64, u64)>::from_redis_value(answer).map_err(|_| RedisStoreError::Answer {
                address: primary,
                command: "TIME",
            })?;
        Ok(Some(
            Duration::from_secs(secs) + Duration::from_micros(micros),
        ))
    }

    fn leave(&mut self, role: MemberRole, member: Uuid) -> Result<(), StoreError> {
        let (key, id) = (keys::members(role.name()), member.to_string());
        Ok(self.attendance(&key, (&id, ""), 0).map(drop)?)
    }
}

impl SharedTrust for RedisStore {
    fn store_id(&self) -> &str {
        &self.id
    }

    fn publish_keys(
        &mut self,
        published: &[PublishedKey],
        millis: u64,
    ) -> Result<Vec<PublishedKey>, StoreError> {
        let mut there = Vec::new();
        match published {
            // No key has an empty name.
            [] => there = self.attendance(keys::TOKEN_KEYS, ("", ""), 0)?,
            published => {
                for key in published {
                    let field = (key.id.as_str(), key.statement.as_str());
                    there = self.attendance(keys::TOKEN_KEYS, field, millis.max(1))?;
                }
            }
        }
        let key = |(id, statement)| PublishedKey { id, statement };
        Ok(there.into_iter().map(key).collect())
    }

    fn crl_names(&mut self) -> Result<Vec<String>, StoreError> {
        // At most so many, and others the next time.
        let names: Vec<Vec<u8>> = self.ask_for_crls("HRANDFIELD", &[CRLS_MAX])?;
        let text = |name| String::from_utf8(name).ok();
        Ok(names.into_iter().filter_map(text).collect())
    }

    fn crl(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes: u64 = self.ask_for_crls("HSTRLEN", &[name])?;
        if bytes > CRL_BYTES_MAX {
            return Ok(Some(Vec::new()));
        }
        Ok(self.ask_for_crls("HGET", &[name])?)
    }

    fn add_crl(&mut self, name: &str, pem: &str) -> Result<(), StoreError> {
        Ok(self.publish_crl(name, pem)?)
    }

    fn remove_crl(&mut self, name: &str) -> Result<(), StoreError> {
        Ok(self.ask_for_crls("HDEL", &[name])?)
    }
}
