-- What the scripts of sessions share.
--
-- A session lives if and only if its user's index holds its fingerprint with an expiry that has not come. What remains
-- of its hash says that the id was used, so that it is never used again.

local GRACE = 1000 -- milliseconds that a hash outlives its session

local function whole(number)
  return string.format('%.0f', number)
end

local function server_now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function expiry_of(index, member, now)
  local expiry = tonumber(redis.call('ZSCORE', index, member) or 0)
  return expiry > now and expiry or nil
end

local function keep_until(key, index, member, expiry)
  redis.call('ZADD', index, whole(expiry), member)
  redis.call('PEXPIREAT', key, whole(expiry + GRACE))
  local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
  redis.call('PEXPIREAT', index, whole(tonumber(last[2])))
end

local function use(key, index, member, now, expiry, length)
  local ends = tonumber(redis.call('HGET', key, 'ends_at'))
  local later = math.max(expiry, math.min(now + length, ends))
  redis.call('HSET', key, 'last_activity_at', whole(now), 'expires_at', whole(later))
  keep_until(key, index, member, later)
end

-- Leaves the mark of a used id for as long as the hash would have been kept.
local function bury(key, index, member, mark)
  local left = redis.call('PTTL', key)
  redis.call('ZREM', index, member)
  redis.call('DEL', key)
  redis.call('HSET', key, 'gone', mark)
  redis.call('PEXPIRE', key, math.max(left, GRACE))
end

local function content(key)
  local fields = redis.call('HGETALL', key)
  return fields[1] and cjson.encode(fields) or false
end
