//! The scripts that run in the server. Each takes effect whole or not at all.
//!
//! Leases are measured by the server's own clock (`TIME`), so a receiver's or summarizer's clock
//! cannot end or prolong one.
//!
//! What a summarizer needs to work runs on a server without free memory too (`allow-oom`): commits
//! trim the journals, which is what frees it. So does what receivers must know of each other, above
//! all who is revoked: the high-water mark leaves memory for it.

use redis::{Cmd, Script};

/// KEYS meta; ARGV owner, milliseconds. The new epoch (0 if another process owns the shard), and
/// the identifier of the last commit.
const ACQUIRE: &str = "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'owner', 'until', 'commit')
if meta[1] and meta[1] ~= ARGV[1] and tonumber(meta[2] or '0') > now then
  return {0, ''}
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
return {epoch, meta[3] or ''}
";

/// KEYS meta; ARGV owner, epoch, milliseconds (0 gives the shard up). 1 if the lease is the
/// caller's and has not ended.
const RENEW: &str = "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or tonumber(meta[3] or '0') <= now then
  return 0
end
local last = ARGV[3] == '0' and '0' or string.format('%.0f', now + tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'until', last)
return 1
";

/// KEYS meta, journal, writers, hosts, series, documents, then those of series; ARGV owner, epoch, the last
/// commit, this commit, cursor, clock (or nothing), what stands at the cursor (nothing if that is
/// not known), then operations: see commit.rs. `OK` or `FENCED`, and the server's seconds. A commit
/// that is there already is not repeated. Where a failover has forgotten the journal's end, others
/// may append before a cursor in what was forgotten: that cursor is refused.
const COMMIT: &str = "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'until', 'commit', 'cursor')
if meta[4] == ARGV[4] then
  return {'OK', time[1]}
end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or tonumber(meta[3] or '0') <= now or (meta[4] or '') ~= ARGV[3] then
  return {'FENCED', time[1]}
end
if ARGV[5] ~= (meta[5] or '0') then
  local last = redis.call('XRANGE', KEYS[2], '0-' .. ARGV[5], '0-' .. ARGV[5])[1]
  if not last then
    return {'FENCED', time[1]}
  end
  local entry = (last[2][2] or '') .. ' ' .. (last[2][4] or '') .. ' ' .. (last[2][12] or '0')
  if ARGV[7] ~= '' and ARGV[7] ~= entry then
    return {'FENCED', time[1]}
  end
end
local at = 8
while at <= #ARGV do
  local operation, name = ARGV[at], ARGV[at + 1]
  if operation == 'R' then
    redis.call('SETRANGE', KEYS[tonumber(name)], ARGV[at + 2], ARGV[at + 3])
    at = at + 4
  elseif operation == 'S' then
    redis.call('SET', KEYS[tonumber(name)], ARGV[at + 2])
    at = at + 3
  elseif operation == 'D' then
    redis.call('DEL', KEYS[tonumber(name)])
    at = at + 2
  elseif operation == 'K' then
    redis.call('HSET', KEYS[tonumber(name)], ARGV[at + 2], ARGV[at + 3])
    redis.call('EXPIREAT', KEYS[tonumber(name)], ARGV[at + 4])
    at = at + 5
  elseif operation == 'E' then
    redis.call('HDEL', KEYS[tonumber(name)], ARGV[at + 2])
    at = at + 3
  elseif operation == 'H' then
    redis.call('HSET', KEYS[4], name, ARGV[at + 2])
    at = at + 3
  elseif operation == 'X' then
    redis.call('HDEL', KEYS[4], name)
    at = at + 2
  elseif operation == 'N' then
    redis.call('HSET', KEYS[6], name, ARGV[at + 2])
    at = at + 3
  elseif operation == 'G' then
    redis.call('HDEL', KEYS[6], name)
    at = at + 2
  elseif operation == 'A' then
    redis.call('SADD', KEYS[5], name)
    at = at + 2
  elseif operation == 'M' then
    redis.call('SREM', KEYS[5], name)
    at = at + 2
  elseif operation == 'W' then
    redis.call('HSET', KEYS[3], name, ARGV[at + 2] .. ' ' .. time[1])
    at = at + 3
  elseif operation == 'F' then
    redis.call('HDEL', KEYS[3], name)
    at = at + 2
  else
    return redis.error_reply('lizmon: unknown operation ' .. operation)
  end
end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[1], 'clock', ARGV[6])
end
redis.call('HSET', KEYS[1], 'cursor', ARGV[5], 'commit', ARGV[4])
if ARGV[5] ~= '0' then
  redis.call('XTRIM', KEYS[2], 'MINID', '0-' .. ARGV[5])
end
return {'OK', time[1]}
";

/// KEYS store; ARGV format, shards, id, the format before. What is stored, after these were where
/// nothing was, and a store of the format before was marked as one of this.
const CREATE: &str = "
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'id', ARGV[3])
elseif redis.call('HGET', KEYS[1], 'format') == ARGV[4] then
  redis.call('HSET', KEYS[1], 'format', ARGV[1])
end
return redis.call('HMGET', KEYS[1], 'format', 'shards', 'id', 'copying')
";

/// KEYS store; ARGV format, shards, id, copy. What is stored, after an empty store was created
/// where nothing was. It is marked with the copy, unless it is in use.
const BEGIN_COPY: &str = "
local is_new = redis.call('EXISTS', KEYS[1]) == 0
if is_new then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'id', ARGV[3])
end
if is_new or redis.call('HEXISTS', KEYS[1], 'copying') == 1 then
  redis.call('HSET', KEYS[1], 'copying', ARGV[4])
end
return redis.call('HMGET', KEYS[1], 'format', 'shards', 'id', 'copying')
";

/// KEYS store; ARGV copy. 1 if the store was marked with this copy; it is not any more.
const COMPLETE_COPY: &str = "
if redis.call('HGET', KEYS[1], 'copying') ~= ARGV[1] then
  return 0
end
return redis.call('HDEL', KEYS[1], 'copying')
";

/// KEYS a hash; ARGV field, milliseconds (0: it is removed), text. All fields that are there, each
/// followed by its text.
const ATTEND: &str = "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  local last = string.format('%.0f', now + tonumber(ARGV[2]))
  redis.call('HSET', KEYS[1], ARGV[1], last .. ' ' .. ARGV[3])
end
local all, there = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #all, 2 do
  local last, text = string.match(all[at + 1], '^(%d+) (.*)$')
  if (tonumber(last) or 0) > now then
    there[#there + 1] = all[at]
    there[#there + 1] = text
  else
    redis.call('HDEL', KEYS[1], all[at])
  end
end
return there
";

/// KEYS a hash; ARGV field, text: a CRL, or whose a key is.
const PUBLISH: &str = "#!lua flags=allow-oom
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
";

/// [`PUBLISH`] as a command of a pipeline. It has the script's text: a server that did not know the
/// script by its hash would go on with the commands that follow.
pub(super) fn publish_command(key: String, field: &str, text: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(PUBLISH).arg(1).arg(key).arg(field).arg(text);
    command
}

/// All scripts, hashed once.
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) commit: Script,
    pub(super) create: Script,
    pub(super) attend: Script,
    pub(super) publish: Script,
    pub(super) begin_copy: Script,
    pub(super) complete_copy: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            acquire: Script::new(ACQUIRE),
            renew: Script::new(RENEW),
            commit: Script::new(COMMIT),
            create: Script::new(CREATE),
            attend: Script::new(ATTEND),
            publish: Script::new(PUBLISH),
            begin_copy: Script::new(BEGIN_COPY),
            complete_copy: Script::new(COMPLETE_COPY),
        }
    }
}

impl std::fmt::Debug for Scripts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripts").finish_non_exhaustive()
    }
}
