-- Give a session that lives another id; the one it had ends.
-- KEYS: hash, hash under the other id, index. ARGV: fingerprint, the other one, channel.
-- Returns the JSON of its hash, or false.
local now = server_now()
local expiry = expiry_of(KEYS[3], ARGV[1], now)
if not expiry then
  local mine = redis.call('HGET', KEYS[1], 'gone') == ARGV[2] and expiry_of(KEYS[3], ARGV[2], now)
  return mine and content(KEYS[2]) -- this very call was here before
end
local state = redis.call('HMGET', KEYS[1], 'idle', 'user_id')
if not state[1] or redis.call('EXISTS', KEYS[2]) == 1 then
  return false
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
use(KEYS[2], KEYS[3], ARGV[2], now, expiry, tonumber(state[1]))
redis.call('HSET', KEYS[1], 'gone', ARGV[2])
redis.call('PEXPIREAT', KEYS[1], whole(expiry + GRACE))
redis.call('PUBLISH', ARGV[3], cjson.encode({'rotated', state[2], ARGV[1], ARGV[2]}))
return content(KEYS[2])
